// Pgqrs is the command line of pgqrs: it shows what stands in the queues of a
// database, why, and runs it again.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRoot().Run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "pgqrs:", err)
		os.Exit(1)
	}
}
