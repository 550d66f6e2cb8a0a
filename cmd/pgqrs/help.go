package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

const helpWidth = 80

func init() { cli.HelpPrinter = printHelp } // package cli has no other place for it

// printHelp writes the help of a command. It is a cli.HelpPrinterFunc that ignores the template.
func printHelp(w io.Writer, _ string, data any) {
	cmd := data.(*cli.Command)
	fmt.Fprintf(w, "%s\n\n", wrap(cmd.FullName()+" - "+cmd.Usage, 0))
	writeUsage(w, cmd)
	if cmd.Description != "" {
		fmt.Fprintf(w, "\n%s\n", wrap(cmd.Description, 0))
	}
	writeCommands(w, cmd)
	if cmd.Root() == cmd {
		writePairs(w, "Flags of every command", flagPairs(cmd.VisibleFlags()))
		return
	}
	writePairs(w, "Flags", flagPairs(cmd.VisibleFlags()))
	fmt.Fprintf(w, "\n%s\n", wrap("Besides, -dsn, -json and -yes: see pgqrs -help.", 0))
}

// writeCommands writes the commands under cmd, by category, in the order of the tree.
func writeCommands(w io.Writer, cmd *cli.Command) {
	var titles []string
	pairs := map[string][][2]string{}
	for _, sub := range cmd.VisibleCommands() {
		title := cmp.Or(sub.Category, "Commands")
		if !slices.Contains(titles, title) {
			titles = append(titles, title)
		}
		pairs[title] = append(pairs[title], [2]string{strings.TrimSpace(sub.Name + " " + sub.ArgsUsage), sub.Usage})
	}
	for _, title := range titles {
		writePairs(w, title, pairs[title])
	}
}

func writeUsage(w io.Writer, cmd *cli.Command) {
	line := cmd.FullName()
	if len(cmd.VisibleCommands()) > 0 {
		line += " COMMAND"
	}
	// -help is always one of them
	if flags := cmd.VisibleFlags(); cmd.Root() == cmd || len(flags) > 1 {
		line += " [flags]"
	}
	if cmd.ArgsUsage != "" {
		line += " " + cmd.ArgsUsage
	}
	fmt.Fprintf(w, "Usage: %s\n", line)
}

func flagPairs(flags []cli.Flag) [][2]string {
	var pairs [][2]string
	for _, flag := range flags {
		doc, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		usage := doc.GetUsage()
		name := "-" + flag.Names()[0]
		before, value, found := strings.Cut(usage, "`")
		if value, after, closed := strings.Cut(value, "`"); found && closed {
			name += " " + value
			usage = before + value + after
		}
		if env := doc.GetEnvVars(); len(env) > 0 {
			usage += " (or " + env[0] + " in the environment)"
		}
		if doc.IsDefaultVisible() && doc.TakesValue() && doc.GetDefaultText() != "" {
			usage += " (default " + strings.Trim(doc.GetDefaultText(), `"`) + ")"
		}
		pairs = append(pairs, [2]string{name, usage})
	}
	return pairs
}

// writePairs writes names and their meanings side by side.
func writePairs(w io.Writer, title string, pairs [][2]string) {
	const most = 26 // a longer name has its meaning on the next line
	width := 0
	for _, pair := range pairs {
		if n := len(pair[0]); n <= most {
			width = max(width, n)
		}
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, pair := range pairs {
		name := pair[0]
		if len(name) > width {
			fmt.Fprintf(w, "  %s\n", name)
			name = ""
		}
		fmt.Fprintf(w, "  %-*s  %s\n", width, name, wrap(pair[1], width+4))
	}
}

// wrap breaks text into lines that fit beside an indent. All lines except the first get the indent.
func wrap(text string, indent int) string {
	var out []string
	for _, paragraph := range strings.Split(text, "\n") {
		if strings.HasPrefix(paragraph, "  ") { // an example
			out = append(out, paragraph)
			continue
		}
		line := ""
		for _, word := range strings.Fields(paragraph) {
			if line != "" && len(line)+1+len(word) > helpWidth-indent {
				out = append(out, line)
				line = ""
			}
			line = strings.TrimSpace(line + " " + word)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n"+strings.Repeat(" ", indent))
}
