package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// An address is an address at which the dashboard listens.
type address struct {
	socket     string // the path of a Unix socket, or empty
	host       string // as it was given
	tcp        string // with the host resolved
	public     bool   // other machines can reach it
	everywhere bool   // on every address of this machine
}

// address parses -addr. An address that other machines can reach needs -public.
func (c call) address() (address, error) {
	given := c.String("addr")
	if path, ok := strings.CutPrefix(given, "unix:"); ok {
		switch {
		case path == "" || path[0] == '@' || path[0] == 0: // a namespace without access rights
			return address{}, misuse(c.Command, "-addr unix: needs the path of a file")
		case c.Bool("public"):
			return address{}, misuse(c.Command, "-public makes no sense for a socket of this machine")
		}
		return address{socket: path}, nil
	}
	host, port, err := net.SplitHostPort(given)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return address{}, misuse(c.Command, "-addr: %w", err)
	}
	resolved, err := net.ResolveTCPAddr("tcp", given)
	if err != nil {
		return address{}, err
	}
	at := address{host: host, tcp: resolved.String(), public: !resolved.IP.IsLoopback(), everywhere: resolved.IP == nil || resolved.IP.IsUnspecified()}
	if at.public && !c.Bool("public") {
		return address{}, misuse(c.Command, "other machines can reach %s: -public allows that", given)
	}
	return at, nil
}

// listen opens the address.
func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.socket == "" {
		return new(net.ListenConfig).Listen(ctx, "tcp", a.tcp)
	}
	listener, err := listenPrivately(ctx, a.socket)
	if !errors.Is(err, syscall.EADDRINUSE) || !abandoned(ctx, a.socket) {
		return listener, err
	}
	if err := os.Remove(a.socket); err != nil {
		return nil, err
	}
	return listenPrivately(ctx, a.socket)
}

// abandoned reports whether a path is a socket on which nobody listens. A link to a socket is none.
func abandoned(ctx context.Context, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close() // somebody listens
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// token returns the token that visitors need, or "". It also reports whether the token must not be
// printed.
func (c call) token(at address) (token string, secret bool, err error) {
	file := c.String("token-file")
	switch {
	case c.Bool("no-token") && file != "":
		return "", false, misuse(c.Command, "-no-token and -token-file exclude each other")
	case c.Bool("no-token") && at.public:
		return "", false, misuse(c.Command, "-no-token is for addresses that other machines cannot reach")
	case c.Bool("no-token"):
		return "", false, nil
	case file != "":
		token, err = c.readToken(file)
		return token, true, err
	case os.Getenv(tokenVariable) != "":
		return os.Getenv(tokenVariable), true, nil
	case at.socket != "":
		return "", false, nil
	}
	return newToken(), false, nil
}

// newToken returns a token that cannot be guessed.
func newToken() string { return rand.Text() }

// readToken reads a token from a file. The file may end in a newline.
func (c call) readToken(path string) (string, error) {
	const most = 4 << 10
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		if err := c.note("Other users may read or write %s: chmod 600 keeps them out.", path); err != nil {
			return "", err
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimRight(string(text), "\r\n")
	if token == "" || len(text) > most {
		return "", misuse(c.Command, "-token-file: %s is empty or longer than %d bytes", path, most)
	}
	return token, nil
}
