package main

import (
	"context"
	"fmt"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
)

// newRoot returns the tree of commands.
func newRoot() *cli.Command {
	return &cli.Command{
		Name:  "pgqrs",
		Usage: "operate durable queues and workflows",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dsn", Usage: "the database, such as sqlite:queue.db", Sources: cli.EnvVars("PGQRS_DSN")},
		},
		Commands: []*cli.Command{
			{Name: "install", Usage: "make the tables, or bring them up to date", Action: install},
		},
	}
}

func install(ctx context.Context, cmd *cli.Command) error {
	store, err := pgqrs.Open(ctx, cmd.String("dsn"))
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Install(ctx); err != nil {
		return err
	}
	fmt.Fprintln(cmd.Root().Writer, "installed")
	return nil
}
