package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/urfave/cli/v3"
)

// help returns the output of pgqrs for the arguments.
func help(t *testing.T, args ...string) string {
	t.Helper()
	var out, err strings.Builder
	a := &app{in: strings.NewReader(""), out: &out, err: &err}
	if code := a.run(t.Context(), append([]string{"pgqrs"}, args...)); code != exitDone || err.Len() > 0 {
		t.Fatalf("pgqrs %v exits with %d: %s", args, code, err.String())
	}
	return out.String()
}

func TestHelpFitsInto80Columns(t *testing.T) {
	root := (&app{}).root()
	err := root.Walk(func(cmd *cli.Command) error {
		for _, line := range strings.Split(help(t, append(path(root, cmd), "-help")...), "\n") {
			if ansi.StringWidth(line) > helpWidth {
				t.Errorf("the help of %s has a line of %d: %s", cmd.Name, ansi.StringWidth(line), line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("the help of %s has a line that ends in spaces: %q", cmd.Name, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// path returns the words from one command to another.
func path(from, to *cli.Command) []string {
	for _, sub := range from.Commands {
		if sub == to {
			return []string{sub.Name}
		}
		if words := path(sub, to); words != nil {
			return append([]string{sub.Name}, words...)
		}
	}
	return nil
}

func TestHelpNamesEveryCommand(t *testing.T) {
	text := help(t, "help")
	for _, cmd := range (&app{}).root().Commands {
		if !strings.Contains(text, "\n  "+cmd.Name) || cmd.Usage == "" {
			t.Errorf("pgqrs help does not say what %s does:\n%s", cmd.Name, text)
		}
	}
	for _, args := range [][]string{{}, {"-help"}, {"--help"}} {
		if got := help(t, args...); got != text {
			t.Errorf("pgqrs %v prints something else than pgqrs help:\n%s", args, got)
		}
	}
}

func TestHelp(t *testing.T) {
	var text strings.Builder
	for _, args := range [][]string{{"help"}, {"messages", "-help"}, {"help", "enqueue"}, {"dead", "redrive", "-help"}} {
		text.WriteString("$ pgqrs " + strings.Join(args, " ") + "\n" + help(t, args...) + "\n")
	}
	isGolden(t, "help", text.String())
}

// written finds the commands that a page shows: in backquotes, or on a line of their own.
var written = regexp.MustCompile("`pgqrs ([^`]*)`|(?m)^    pgqrs (.*?)(?:   .*)?$")

func TestThePagesShowCommandsThatExist(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range written.FindAllStringSubmatch(string(text), -1) {
			for _, line := range strings.Split(found[1]+found[2], " && pgqrs ") {
				n++
				if problem := unknown(strings.Fields(line)); problem != "" {
					t.Errorf("%s shows pgqrs %s: %s", page, line, problem)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found in the pages", n)
	}
}

// unknown returns the first word of a command line that is no command or flag, or "".
func unknown(words []string) string {
	cmd := (&app{}).root()
	flags := cmd.Flags
	for i, word := range words {
		name, isFlag := strings.CutPrefix(word, "-")
		switch sub := cmd.Command(word); {
		case isFlag && !slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }):
			return "there is no flag " + word
		case sub != nil:
			cmd, flags = sub, append(slices.Clone(flags), sub.Flags...)
		case i == 0, !isFlag && word == strings.ToLower(word) && len(cmd.Commands) > 0:
			return "there is no command " + word
		}
	}
	return ""
}
