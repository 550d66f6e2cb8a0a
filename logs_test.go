package pgqrs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A logged is a line that the library logs.
type logged struct {
	level string
	keys  []string
}

// documentedLogs are the rows of the table in docs/OPERATIONS.md, by message.
func documentedLogs(t *testing.T) map[string]logged {
	t.Helper()
	page, err := os.ReadFile("docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "## What the log says")
	if !found {
		t.Fatal("the page has no section of what the log says")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]logged{}
	for _, line := range strings.Split(section, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.Contains(line, "---") || strings.Contains(line, "| level |") {
			continue
		}
		message := strings.TrimSpace(cells[1])
		if _, twice := rows[message]; twice || strings.TrimSpace(cells[4]) == "" {
			t.Errorf("%q stands in the table twice, or with nothing to do", message)
		}
		rows[message] = logged{strings.TrimSpace(cells[2]), strings.FieldsFunc(cells[3], func(r rune) bool { return r == ',' || r == ' ' })}
	}
	return rows
}

// isLogger reports whether an expression is a logger by its name: log, a field of that name,
// failure, or what failures.of returns.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "log" || e.Name == "failure"
	case *ast.CallExpr:
		method, ok := e.Fun.(*ast.SelectorExpr)
		return ok && method.Sel.Name == "of"
	case *ast.SelectorExpr:
		return e.Sel.Name == "log"
	}
	return false
}

// keysOf returns the keys among arguments that are keys and values in turn.
func keysOf(t *testing.T, where string, args []ast.Expr) []string {
	t.Helper()
	var keys []string
	for i := 0; i < len(args); i += 2 {
		lit, ok := args[i].(*ast.BasicLit)
		if !ok || i+1 == len(args) {
			t.Errorf("%s: argument %d of a log call is not a constant key with a value", where, i)
			return keys
		}
		key, _ := strconv.Unquote(lit.Value)
		keys = append(keys, key)
	}
	return keys
}

// logCalls calls found for each line that a function logs, with the keys of its loggers that are made by With.
func logCalls(t *testing.T, files *token.FileSet, fn *ast.FuncDecl, found func(where, message string, l logged)) {
	t.Helper()
	var with []string
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !isLogger(method.X) {
			return true
		}
		where := files.Position(call.Pos()).String()
		switch level := method.Sel.Name; level {
		case "With":
			with = append(with, keysOf(t, where, call.Args)...)
		case "over": // of a failure
		case "Debug", "Info", "Warn", "Error":
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the message is not a constant", where)
				return true
			}
			text, _ := strconv.Unquote(lit.Value)
			message, ok := strings.CutPrefix(text, "pgqrs: ")
			if !ok {
				t.Errorf("%s: %q does not begin with pgqrs", where, text)
			}
			found(where, message, logged{level, append(slices.Clone(with), keysOf(t, where, call.Args[1:])...)})
		case "Log": // what failures write was said where they were called
		default:
			t.Errorf("%s: %s is a way to log that this test does not know", where, level)
		}
		return true
	})
}

func TestThePageSaysWhatTheLogSays(t *testing.T) {
	rows := documentedLogs(t)
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	seen := map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				logCalls(t, files, fn, func(where, message string, l logged) {
					seen[message] = true
					if row, ok := rows[message]; !ok || row.level != l.level || !slices.Equal(row.keys, l.keys) {
						t.Errorf("%s logs %q as %s with %q; docs/OPERATIONS.md has %s with %q", where, message, l.level, l.keys, row.level, row.keys)
					}
				})
			}
		}
	}
	for message := range rows {
		if !seen[message] {
			t.Errorf("docs/OPERATIONS.md has %q, which nothing logs", message)
		}
	}
	if len(seen) < 25 {
		t.Errorf("only %d messages were found; the test has gone blind", len(seen))
	}
}
