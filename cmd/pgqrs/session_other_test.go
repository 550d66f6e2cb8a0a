//go:build !unix

package main

// asSession returns the exit code of a failure, because there are no sessions here.
func asSession(string) int { return 1 }
