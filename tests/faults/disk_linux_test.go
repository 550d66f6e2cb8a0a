package faults_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// mountSmall mounts a file system of that size on a directory, for its owner.
func mountSmall(t *testing.T, dir, size string) {
	t.Helper()
	var owner syscall.Stat_t
	err := syscall.Stat(dir, &owner)
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", size, owner.Uid, owner.Gid))
	}
	if errors.Is(err, os.ErrPermission) && os.Getenv("CI") == "" {
		t.Skip("a full disk needs the right to mount a small one: run this as root")
	}
	if err != nil {
		t.Fatalf("mount a small disk on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill writes a file until the disk is full.
func fill(t *testing.T, dir string) (path string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = file.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return file.Name()
}
