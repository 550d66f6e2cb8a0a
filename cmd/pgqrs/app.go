package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dsn"
	"github.com/urfave/cli/v3"
)

// An app is the command with its environment.
type app struct {
	in       io.Reader
	out, err io.Writer

	asks          bool // whether somebody can answer a question
	progress      bool // whether err shows a progress bar
	width, height int  // of the terminal that out is, or 0

	args    []string
	secrets dsn.Secrets // of DSNs, wherever they stand in the command line
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
	a.err = &sharedWriter{w: a.err} // a worker's log and its commands write at once
	root := a.root()
	a.args = args
	a.addSecrets(secretsOfArguments(args, flagNames(root)))
	err := root.Run(ctx, args)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if text := err.Error(); text != "" {
		fmt.Fprintln(a.err, "pgqrs:", clean(a.hide(strings.TrimPrefix(text, "pgqrs: "))))
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

// hide hides secrets in a text for standard error. Such a text may quote a DSN that is at the wrong
// place of the command line.
func (a *app) hide(text string) string {
	return passwords.ReplaceAllStringFunc(a.secrets.Hide(text), func(found string) string {
		parts := passwords.FindStringSubmatch(found)
		if parts[1] != "" {
			return parts[1] + dsn.Redacted + "@"
		}
		return parts[2] + dsn.Redacted
	})
}

// schemeless matches a DSN without its scheme, up to the name of the database.
var schemeless = regexp.MustCompile(`^[^\s:/@]+:[^/].*@[^@/]+/`)

const longestDSN = 2 << 10 // bytes; a longer argument is a payload

// secretsOfArguments returns the secrets of all arguments, as if each were a DSN. The name of an
// existing flag does not count.
func secretsOfArguments(args []string, flags map[string]bool) dsn.Secrets {
	var found dsn.Secrets
	for _, arg := range args {
		if name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "="); given && arg[0] == '-' && flags[name] {
			arg = value
		}
		if len(arg) > longestDSN {
			continue
		}
		found = append(found, dsn.SecretsOf(arg, "")...)
		if schemeless.MatchString(arg) {
			found = append(found, dsn.SecretsOf("postgres://"+arg, "")...)
		}
	}
	return found
}

// addSecrets adds secrets to those that are hidden. It leaves out a password that is also an
// argument, such as the name of a queue, because a question has to name it.
func (a *app) addSecrets(found dsn.Secrets) {
	a.secrets = append(a.secrets, slices.DeleteFunc(found, func(secret string) bool { return slices.Contains(a.args, secret) })...)
	// A longer secret comes first, because it may contain a shorter one.
	slices.SortFunc(a.secrets, func(a, b string) int { return len(b) - len(a) })
}

// flagNames returns the names of the flags of a command and of all commands under it.
func flagNames(cmd *cli.Command) map[string]bool {
	names := map[string]bool{}
	for _, flag := range cmd.Flags {
		for _, name := range flag.Names() {
			names[name] = true
		}
	}
	for _, sub := range cmd.Commands {
		maps.Copy(names, flagNames(sub))
	}
	return names
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
		text, err := a.findDSN(cmd)
		if err != nil {
			return err
		}
		a.addSecrets(dsn.SecretsOf(text, ""))
		logger := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
		store, err := pgqrs.Config{Logger: logger}.Open(ctx, text)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		return fn(ctx, call{cmd, a, store, text})
	}
}

// findDSN returns the DSN from the flags, or else from the environment. Every user of the machine
// can see a password on the command line.
func (a *app) findDSN(cmd *cli.Command) (string, error) {
	text, file := cmd.String("dsn"), cmd.String("dsn-file")
	switch {
	case text != "" && file != "":
		return "", misuse(cmd, "-dsn and -dsn-file: give one of them")
	case text == "" && cmd.IsSet("dsn"), file == "" && cmd.IsSet("dsn-file"):
		return "", misuse(cmd, "-dsn or -dsn-file is empty")
	case file != "":
		if readByOthers(file) {
			fmt.Fprintf(a.err, "pgqrs: %s\n", clean(a.hide(fmt.Sprintf("other users can read the -dsn-file %q; chmod 600 stops that", file))))
		}
		content, err := os.ReadFile(file)
		if text = strings.TrimSpace(string(content)); err == nil && text == "" {
			err = fmt.Errorf("%s is empty; write the DSN into it", file)
		}
		return text, err
	case text != "":
		if len(dsn.SecretsOf(text, "")) > 0 {
			fmt.Fprintln(a.err, "pgqrs: -dsn has a password, which lists of processes and shell histories show; use PGQRS_DSN or -dsn-file")
		}
		return text, nil
	}
	if text = os.Getenv("PGQRS_DSN"); text == "" {
		return "", misuse(cmd, "which database? Set -dsn, -dsn-file or PGQRS_DSN")
	}
	return text, nil
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
