//go:build !linux

package faults_test

import "testing"

func mountSmall(t *testing.T, _, _ string) {
	t.Helper()
	t.Skip("a full disk is tried on Linux, with a small tmpfs")
}

func fill(t *testing.T, dir string) (path string) {
	t.Helper()
	t.Fatal("no small disk to fill")
	return ""
}
