package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pgqrs/pgqrs-go/dashboard"
	"github.com/urfave/cli/v3"
)

// closing is how long requests may continue after an interrupt.
const closing = 5 * time.Second

// tokenVariable is the environment variable with the token of the dashboard.
const tokenVariable = "PGQRS_TOKEN"

func (a *app) serve() *cli.Command {
	return &cli.Command{
		Name: "serve", Category: look, Usage: "the dashboard, in a browser",
		Description: "It listens on this machine only, and is read-only unless -actions is given. Everybody who has its token sees every payload, and with -actions may change things.\n\n" +
			"It prints its address with a new token. That address lets a browser in, which keeps a cookie. A program sends the header \"Authorization: Bearer TOKEN\". " +
			"-token-file, or " + tokenVariable + " in the environment, sets a token of 16 characters or more, which is not printed.\n\n" +
			"It answers only for localhost, loopback addresses, the host of -addr and those of -host, so that no other name can be pointed at it. " +
			"Any other address to listen on needs -public. The connection is not encrypted: put a proxy with TLS before it. " +
			"-addr unix:FILE makes a socket for this user alone, which needs no token:\n\n" +
			"  curl --unix-socket FILE http://localhost/\n\n" +
			"To put it behind a login, mount dashboard.Handler in a program of your own.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: "localhost:8080", Usage: "listen on `ADDRESS`, a host and port or unix:FILE; port 0 takes a free one"},
			&cli.StringSliceFlag{Name: "host", Usage: "answer for `HOST` too, such as the name at a proxy; may be repeated"},
			&cli.BoolFlag{Name: "public", Usage: "allow an address that other machines reach"},
			&cli.StringFlag{Name: "token-file", Usage: "take the token from `FILE`"},
			&cli.BoolFlag{Name: "no-token", Usage: "let in all users of this machine; not with an address that others reach"},
			&cli.BoolFlag{Name: "actions", Usage: "let visitors redrive, delete, pause, cancel and run schedules"},
			&cli.StringSliceFlag{Name: "origin", Usage: "let pages of `ORIGIN`, such as https://ops.example.com, send actions too; may be repeated"},
		},
		Action: a.on(0, 0, func(ctx context.Context, c call) error { return c.serve(ctx) }),
	}
}

func (c call) serve(ctx context.Context) error {
	at, err := c.address()
	if err != nil {
		return err
	}
	token, secret, err := c.token(at)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(c.err, nil))
	options := dashboard.Options{
		Actions: c.Bool("actions"), TrustedOrigins: c.StringSlice("origin"),
		Hosts: append([]string{"localhost"}, c.StringSlice("host")...), Token: token, Logger: log,
	}
	if err := options.Check(); err != nil {
		return misuse(c.Command, "%w", err)
	}
	if own := []string{at.host}; (dashboard.Options{Hosts: own}).Check() == nil && !at.everywhere {
		options.Hosts = append(options.Hosts, own...)
	}
	listener, err := at.listen(ctx)
	if err != nil {
		return err
	}
	shown := token
	if secret {
		shown = ""
	}
	err = c.announce(at, listener, shown)
	if err == nil && secret {
		err = c.note("The token is that of -token-file or %s. A browser sends it once by /?token=TOKEN.", tokenVariable)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return serveUntil(ctx, newServer(dashboard.Handler(c.store, options), log), listener)
}

// announce prints the address of the dashboard, with the token if the token may be printed.
func (c call) announce(at address, listener net.Listener, token string) error {
	if at.socket != "" {
		return c.done(map[string]any{"socket": at.socket}, "The dashboard is at the socket %s. Ctrl-C ends it.", at.socket)
	}
	url := "http://" + listener.Addr().String()
	if at.everywhere {
		host := append(c.StringSlice("host"), "localhost")[0]
		url = fmt.Sprintf("http://%s:%d", host, listener.Addr().(*net.TCPAddr).Port)
	}
	if token != "" {
		url += "/?token=" + token
	}
	if err := c.done(map[string]any{"url": url}, "The dashboard is at %s - Ctrl-C ends it.", url); err != nil || !at.public {
		return err
	}
	if at.everywhere && len(c.StringSlice("host")) == 0 {
		if err := c.note("It answers for localhost alone. -host names the hosts by which others reach it."); err != nil {
			return err
		}
	}
	return c.note("Others can reach it, and the connection is not encrypted. Put a proxy with TLS before it.")
}

// newServer returns a server that disconnects slow clients. A page takes at most 10 seconds to
// make.
func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,

		DisableGeneralOptionsHandler: true, // it would answer for any host
	}
	if log != nil {
		server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	}
	return server
}

// serveUntil serves until ctx is done. Then it lets requests finish.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off: %w", err), server.Close())
	}
	return nil
}
