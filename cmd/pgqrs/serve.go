package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pgqrs/pgqrs-go/cmd/pgqrs/dashboard"
	"github.com/urfave/cli/v3"
)

// closing is how long requests may go on after an interrupt.
const closing = 5 * time.Second

func (a *app) serve() *cli.Command {
	return &cli.Command{
		Name: "serve", Category: look, Usage: "the dashboard, in a browser",
		Description: "It is read-only unless -actions is given, and asks nobody who they are: whoever reaches its address sees every payload, and may act with -actions. " +
			"So it listens on this machine alone unless told otherwise. To put it behind a login, mount dashboard.Handler in a program of your own, or a proxy before it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: "localhost:8080", Usage: "listen on `ADDRESS`; port 0 takes a free one"},
			&cli.BoolFlag{Name: "actions", Usage: "let visitors redrive, delete, pause, cancel and run schedules"},
			&cli.StringSliceFlag{Name: "origin", Usage: "let pages of `ORIGIN`, such as https://ops.example.com, send actions too; may be repeated"},
		},
		Action: a.on(0, 0, func(ctx context.Context, c call) error { return c.serve(ctx) }),
	}
}

func (c call) serve(ctx context.Context) error {
	for _, origin := range c.StringSlice("origin") {
		if err := new(http.CrossOriginProtection).AddTrustedOrigin(origin); err != nil {
			return misuse(c.Command, "-origin: %w", err)
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.String("addr"))
	if err != nil {
		return err
	}
	handler := dashboard.Handler(c.store, dashboard.Options{
		Actions: c.Bool("actions"), TrustedOrigins: c.StringSlice("origin"),
		Logger: slog.New(slog.NewTextHandler(&sharedWriter{w: c.err}, nil)),
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	if err := c.done(map[string]any{"url": "http://" + listener.Addr().String()}, "The dashboard is at http://%s. Ctrl-C ends it.", listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serveUntil(ctx, server, listener)
}

// serveUntil serves until ctx is done, and lets requests finish then.
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
