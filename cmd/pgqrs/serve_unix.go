//go:build unix

package main

import (
	"context"
	"net"
	"syscall"
)

// listenPrivately creates a Unix socket to which only this user can connect, from the first moment
// on. It sets the mask of the process, which affects nothing else: the command creates no other
// file at that time.
func listenPrivately(ctx context.Context, path string) (net.Listener, error) {
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
