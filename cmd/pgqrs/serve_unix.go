//go:build unix

package main

import (
	"context"
	"net"
	"syscall"
)

// listenPrivately makes a Unix socket that this user alone can connect to, from its first moment
// on. The mask is the process's. Nothing else of the command makes files at that time.
func listenPrivately(ctx context.Context, path string) (net.Listener, error) {
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
