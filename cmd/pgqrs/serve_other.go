//go:build !unix

package main

import (
	"context"
	"errors"
	"net"
)

// listenPrivately returns an error: here a socket has no rights.
func listenPrivately(context.Context, string) (net.Listener, error) {
	return nil, errors.New("-addr unix: needs a Unix system")
}
