// Pgqrs operates the queues and workflows of a database: it shows what is
// stuck, says why, and runs it again.
//
//	export PGQRS_DSN=postgres://user:password@host/database    # or sqlite:queue.db; or -dsn-file, or -dsn
//	pgqrs queues                          what is in each queue
//	pgqrs dead list emails                dead letters, with their errors
//	pgqrs messages show 42                one message: payload, error, attempts
//	pgqrs dead redrive 42 43              run these again
//	pgqrs dead redrive -all emails        run all of them again
//	pgqrs runs list -state error          failed workflow runs
//	pgqrs runs show 7                     the steps of one, with their durations
//	pgqrs runs retry 7                    go on from the failed step
//	pgqrs top                             live
//	pgqrs demo                            a database to try all this on
//
// pgqrs help lists every command, and pgqrs COMMAND -help says what it does.
// The DSNs are those of pgqrs.Open. From a checkout use go run ./cmd/pgqrs.
// A DSN with a password belongs into PGQRS_DSN or a file: lists of processes
// and shell histories show -dsn, and pgqrs warns of it.
//
// # Output
//
// Tables are for people: what they show of payloads, errors and names is cut
// to fit, columns for which a terminal is too narrow are left out, as are those
// that no row has anything for, and what a terminal could take for a command
// is written as an escape. Notes and questions go to standard error.
//
// With -json each thing is one line of JSON, and all of its fields are there. Listings cut
// payloads, inputs, outputs and errors of more than 16 KiB, and leave out headers of that size.
// "cut" is true then, a cut payload is a string, and "payload_size" is its size in bytes. "messages
// show", "runs show" and "schedules list NAME" print the whole. The steps of a run are a listing.
// A listing ends after -limit things. With -all it has all of them.
//
// # Exit codes
//
//	0  done
//	1  failed: the database, the network, a file
//	2  wrong usage
//	3  nothing found: what was named does not exist, or none of it was left to do
//	4  not confirmed: the question was answered with no, or there was no terminal to ask on and no -yes
//	5  not possible in this state, such as to retry a run that did not fail
//
// # Drivers
//
// PostgreSQL (lib/pq) and SQLite (ncruces) are built in. Built with
// -tags libsql, which needs cgo, it opens turso: DSNs too, by go-libsql.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/charmbracelet/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	a.asks = term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stderr.Fd())
	if term.IsTerminal(os.Stdout.Fd()) {
		a.width, a.height, _ = term.GetSize(os.Stdout.Fd()) // a size of 0 is an unknown one
	}
	a.progress = term.IsTerminal(os.Stderr.Fd())
	os.Exit(a.run(ctx, os.Args))
}
