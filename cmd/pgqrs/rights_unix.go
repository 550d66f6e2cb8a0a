//go:build unix

package main

import "os"

// readByOthers reports whether a file's group or other users may read it.
func readByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0
}
