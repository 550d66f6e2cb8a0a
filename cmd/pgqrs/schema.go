package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dsn"
	"github.com/urfave/cli/v3"
)

const setUp = "Set up"

func (a *app) install() *cli.Command {
	return &cli.Command{
		Name: "install", Category: setUp, Usage: "make the tables, or bring them up to date",
		Description: "It loses no data, and may be repeated even while workers run.",
		Action: a.on(0, 0, func(ctx context.Context, c call) error {
			if err := c.store.Install(ctx); err != nil {
				return err
			}
			report, err := c.store.Verify(ctx)
			if err != nil {
				return err
			}
			return c.done(map[string]any{"schema": report.SchemaVersion}, "The schema is at version %d.", report.SchemaVersion)
		}),
	}
}

func (a *app) uninstall() *cli.Command {
	return &cli.Command{
		Name: "uninstall", Category: setUp, Usage: "drop the tables with all that is in them",
		Action: a.on(0, 0, func(ctx context.Context, c call) error {
			if err := c.confirm("drop the tables of pgqrs in %s, with every queue, message and run in them", place(c.dsn)); err != nil {
				return err
			}
			if err := c.store.Uninstall(ctx); err != nil {
				return err
			}
			return c.done(map[string]any{"uninstalled": true}, "The tables are gone.")
		}),
	}
}

// place names the database of a DSN, without secrets.
func place(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return "the database"
	}
	return dsn.SecretsOf(text, "").Hide(strings.TrimRight(u.Scheme+" "+u.Opaque+u.Host+u.Path, " "))
}

func (a *app) verify() *cli.Command {
	return &cli.Command{
		Name: "verify", Category: setUp, Usage: "look whether the schema and the settings are right",
		Description: "It changes nothing, and exits with 1 if install is needed.",
		Action: a.on(0, 0, func(ctx context.Context, c call) error {
			report, err := c.store.Verify(ctx)
			if err != nil {
				return err
			}
			if err := c.report(report); err != nil {
				return err
			}
			if !report.OK() {
				return fmt.Errorf("%w: the schema is not what this version needs", pgqrs.ErrNotInstalled)
			}
			return nil
		}),
	}
}

func (a *app) version() *cli.Command {
	return &cli.Command{
		Name: "version", Category: setUp, Usage: "print the version of pgqrs",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArguments(cmd, 0, 0); err != nil {
				return err
			}
			if cmd.Bool("json") {
				return writeJSON(a.out, map[string]string{"version": pgqrs.Version})
			}
			_, err := fmt.Fprintln(a.out, "pgqrs "+pgqrs.Version)
			return err
		},
	}
}

// whole leaves out the parts of tables that are missing as a whole.
func whole(missing []string) []string {
	return slices.DeleteFunc(slices.Clone(missing), func(text string) bool {
		_, table, part := strings.Cut(text, " of ")
		return part && slices.Contains(missing, table)
	})
}

func (c call) report(r pgqrs.Report) error {
	if c.Bool("json") {
		return writeJSON(c.out, struct {
			OK bool `json:"ok"`
			pgqrs.Report
		}{r.OK(), r})
	}
	fields := []field{
		{"dialect", string(r.Dialect)}, {"engine", r.Engine}, {"writers", string(r.Writers)},
		{"schema", fmt.Sprintf("%d; this version makes %d", r.SchemaVersion, r.LibraryVersion)},
	}
	for _, more := range []struct {
		name string
		list []string
	}{{"missing", whole(r.Missing)}, {"denied", r.Denied}, {"newer", r.Newer}, {"warning", r.Warnings}} {
		for _, text := range more.list {
			fields = append(fields, field{more.name, text})
		}
	}
	return writeFields(c.out, fields...)
}
