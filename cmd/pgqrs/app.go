package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

// An app is the command with its environment.
type app struct {
	in       io.Reader
	out, err io.Writer

	asks          bool // whether somebody can answer a question
	progress      bool // whether err shows a progress bar
	width, height int  // of the terminal that out is, or 0
}

// A call is one invocation of a command on a database.
type call struct {
	*cli.Command
	*app
	store *pgqrs.Store
	dsn   string
}

// run runs the command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	err := a.root().Run(ctx, args)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if text := err.Error(); text != "" {
		fmt.Fprintln(a.err, "pgqrs:", clean(withoutPasswords(strings.TrimPrefix(text, "pgqrs: "))))
	}
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		fmt.Fprintf(a.err, "Try %s -help.\n", usage.command)
	}
	if errors.Is(err, pgqrs.ErrNotInstalled) {
		fmt.Fprintln(a.err, "Is it the right database? Then pgqrs install makes the tables, or brings them up to date.")
	}
	return code
}

// passwords finds the password of a DSN, as a URL or as key=value pairs.
var passwords = regexp.MustCompile(`(?i)(://[^\s:/@]*:)\S*@|(password\s*=\s*)(?:'[^']*'|[^\s"]+)`)

// withoutPasswords hides passwords in the text of an error. Such a text may quote a DSN that is at
// the wrong place of the command line.
func withoutPasswords(text string) string {
	return passwords.ReplaceAllStringFunc(text, func(found string) string {
		parts := passwords.FindStringSubmatch(found)
		if parts[1] != "" {
			return parts[1] + "xxxxx@"
		}
		return parts[2] + "xxxxx"
	})
}

// root returns the tree of commands.
func (a *app) root() *cli.Command {
	root := &cli.Command{
		Name:  "pgqrs",
		Usage: "operate durable queues and workflows",
		Description: "Shows what stands in the queues of a database, why, and runs it again. pgqrs COMMAND -help says more of a command.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing found, 4 not confirmed, 5 not possible in this state.",
		Writer: a.out, ErrWriter: a.err, Reader: a.in,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run handles the error
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dsn", Usage: "the `DATABASE`: postgres://..., sqlite:FILE or turso:FILE (or PGQRS_DSN in the environment)"},
			&cli.StringFlag{Name: "dsn-file", Usage: "read the DATABASE from `FILE`, which only you should be able to read"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, one object a line"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask before something is lost"},
		},
		Commands: []*cli.Command{
			a.queues(), a.stats(), a.top(), a.serve(), a.messages(), a.dead(), a.workers(), a.runs(), a.schedules(),
			a.enqueue(), a.work(), a.pause(), a.resume(), a.purge(), a.drop(),
			a.install(), a.uninstall(), a.verify(), a.demo(), a.version(),
		},
	}
	complete(root)
	return root
}

// complete gives every command the settings that all commands share.
func complete(cmd *cli.Command) {
	if cmd.Command("list") != nil {
		cmd.DefaultCommand = "list"
	}
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error { return misuse(cmd, "%w", err) }
	if len(cmd.Commands) == 0 {
		cmd.HideHelpCommand = true // a help command would use up an argument
	} else if cmd.Action == nil {
		cmd.Action = group
	}
	for _, sub := range cmd.Commands {
		complete(sub)
	}
}

// group is the action of a command that only has subcommands. It prints the help, unless the
// arguments name an unknown command.
func group(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		text := fmt.Sprintf("there is no command %q", cmd.Args().First())
		if near := cli.SuggestCommand(cmd.Commands, cmd.Args().First()); near != "" {
			text += fmt.Sprintf("; is it %q?", near)
		}
		return misuse(cmd, "%s", text)
	}
	if cmd == cmd.Root() {
		return cli.ShowRootCommandHelp(cmd)
	}
	return cli.ShowSubcommandHelp(cmd)
}

// on returns the action that calls fn with the named database. The command takes least to most
// arguments. If most is -1 there is no limit.
func (a *app) on(least, most int, fn func(context.Context, call) error) cli.ActionFunc {
	return func(ctx context.Context, cmd *cli.Command) (err error) {
		if err := checkArguments(cmd, least, most); err != nil {
			return err
		}
		dsn, err := a.findDSN(cmd)
		if err != nil {
			return err
		}
		logger := slog.New(slog.NewTextHandler(&sharedWriter{w: a.err}, &slog.HandlerOptions{Level: slog.LevelWarn}))
		store, err := pgqrs.Config{Logger: logger}.Open(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		return fn(ctx, call{cmd, a, store, dsn})
	}
}

// password matches a password or an encryption key in a DSN.
var password = regexp.MustCompile(`://[^@?]*:[^@?]+@|(?i)[?&][^=&]*(password|encryption_key)=.`)

// findDSN returns the DSN from the flags, or else from the environment. Every user of the machine
// can see a password on the command line.
func (a *app) findDSN(cmd *cli.Command) (string, error) {
	dsn, file := cmd.String("dsn"), cmd.String("dsn-file")
	switch {
	case dsn != "" && file != "":
		return "", misuse(cmd, "-dsn and -dsn-file: give one of them")
	case dsn == "" && cmd.IsSet("dsn"), file == "" && cmd.IsSet("dsn-file"):
		return "", misuse(cmd, "-dsn or -dsn-file is empty")
	case file != "":
		if readByOthers(file) {
			fmt.Fprintf(a.err, "pgqrs: %s\n", clean(fmt.Sprintf("other users can read the -dsn-file %q; chmod 600 stops that", file)))
		}
		text, err := os.ReadFile(file)
		if dsn = strings.TrimSpace(string(text)); err == nil && dsn == "" {
			err = fmt.Errorf("%s is empty; write the DSN into it", file)
		}
		return dsn, err
	case dsn != "":
		if password.MatchString(dsn) {
			fmt.Fprintln(a.err, "pgqrs: -dsn has a password, which lists of processes and shell histories show; use PGQRS_DSN or -dsn-file")
		}
		return dsn, nil
	}
	if dsn = os.Getenv("PGQRS_DSN"); dsn == "" {
		return "", misuse(cmd, "which database? Set -dsn, -dsn-file or PGQRS_DSN")
	}
	return dsn, nil
}

func checkArguments(cmd *cli.Command, least, most int) error {
	switch n := cmd.Args().Len(); {
	case n < least:
		return misuse(cmd, "it needs %s", cmd.ArgsUsage)
	case most >= 0 && n > most:
		return misuse(cmd, "too many arguments: %q", cmd.Args().Get(most))
	}
	return nil
}
