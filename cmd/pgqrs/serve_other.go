//go:build !unix

package main

import (
	"context"
	"errors"
	"net"
)

// listenPrivately returns an error, because sockets have no access rights here.
func listenPrivately(context.Context, string) (net.Listener, error) {
	return nil, errors.New("-addr unix: needs a Unix system")
}
