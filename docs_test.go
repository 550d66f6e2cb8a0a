package pgqrs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A documented is a row of the last table of docs/STATEMENTS.md.
type documented struct {
	tag, how  string
	arguments int
	columns   string
}

func readPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("docs/STATEMENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func readTable(t *testing.T) []documented {
	t.Helper()
	_, table, found := strings.Cut(readPage(t), "## Arguments and columns")
	if !found {
		t.Fatal("the page has no table of arguments and columns")
	}
	inBrackets := regexp.MustCompile("`\\[[^`]*`")
	var list []documented
	for _, line := range strings.Split(table, "\n") {
		if !strings.HasPrefix(line, "| `pgqrs:") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), "|")
		for len(cells) < 4 {
			cells = append(cells, "")
		}
		d := documented{tag: strings.Trim(cells[0], " `"), how: strings.TrimSpace(cells[1]), columns: strings.TrimSpace(cells[3])}
		if arguments := strings.TrimSpace(inBrackets.ReplaceAllString(cells[2], "list")); arguments != "" {
			d.arguments = len(splitArguments(arguments))
		}
		list = append(list, d)
	}
	return list
}

// splitArguments splits at commas, except commas inside the description of a list.
func splitArguments(text string) []string {
	list, each, ok := strings.Cut(text, ", each")
	if ok && strings.Contains(each, "limit") {
		panic("an argument after a list with items: " + text)
	}
	return strings.Split(strings.ReplaceAll(list, ", or NULL", " or NULL"), ", ")
}

func TestEveryTagIsOnThePage(t *testing.T) {
	var tags []string
	for _, d := range readTable(t) {
		tags = append(tags, d.tag)
	}
	known := allTags()
	for _, tag := range known {
		if n := strings.Count(strings.Join(tags, "\n")+"\n", tag+"\n"); n != 1 {
			t.Errorf("%s stands in the table %d times, want once", tag, n)
		}
		if strings.Count(readPage(t), "`"+tag+"`") < 2 {
			t.Errorf("%s belongs to no operation", tag)
		}
	}
	for _, tag := range regexp.MustCompile(`pgqrs:[a-z_.]+`).FindAllString(readPage(t), -1) {
		if !slices.Contains(known, strings.TrimSuffix(tag, ".")) {
			t.Errorf("%s is on the page, but no statement has it", tag)
		}
	}
}

// A tag in the source that allTags does not know would be missing from the page unnoticed.
func TestNoStatementIsHidden(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	known := append(allTags(), "pgqrs:group.name") // a pattern in a comment
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		source, err := os.ReadFile(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`/\* (pgqrs:[a-z_.]+) \*/`).FindAllStringSubmatch(string(source), -1) {
			if !slices.Contains(known, found[1]) {
				t.Errorf("%s: %s is not among allTags", entry.Name(), found[1])
			}
		}
	}
}

// contracts returns the comment of each statement of the dialects, by path.
func contracts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	file, err := parser.ParseFile(token.NewFileSet(), "dialect.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	addContracts(found, file)
	return found
}

func addContracts(found map[string]string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok && strings.HasSuffix(spec.Name.Name, "SQL") {
			for _, field := range spec.Type.(*ast.StructType).Fields.List {
				group := strings.TrimSuffix(spec.Name.Name, "SQL")
				found[group+"."+field.Names[0].Name] = field.Doc.Text()
			}
		}
		return true
	})
}

// howOf reads Query or Exec from the contract of a statement, or of the list that it stands in.
func howOf(path, contract string) string {
	query, exec := strings.Contains(contract, "Query:"), strings.Contains(contract, "Exec")
	switch {
	case strings.Contains(contract, "Exec, then Query:"):
		return map[bool]string{true: "Exec", false: "Query"}[strings.HasSuffix(path, "[0]")]
	case query != exec:
		return map[bool]string{true: "Query", false: "Exec"}[query]
	}
	return ""
}

var index = regexp.MustCompile(`\[.*`)

func TestThePageSaysWhatTheStatementsTake(t *testing.T) {
	texts, how := map[string]string{}, map[string]string{}
	said := contracts(t)
	for _, d := range []Dialect{Postgres, SQLite} {
		for path, text := range textsOf(dialects[d]) {
			contract := said[index.ReplaceAllString(path, "")]
			texts[tagOf(text)] = text
			if how[tagOf(text)] = howOf(path, contract); how[tagOf(text)] == "" {
				t.Errorf("the contract of %s does not say Query or Exec: %q", path, contract)
			}
		}
	}
	for _, row := range readTable(t) {
		text, ok := texts[row.tag]
		if !ok {
			continue // it is outside the dialects
		}
		dialect := SQLite
		if strings.Contains(text, "$1") {
			dialect = Postgres
		}
		n, err := placeholders(dialect, text)
		if got, want := fmt.Sprintf("%s with %d arguments", row.how, row.arguments), fmt.Sprintf("%s with %d arguments", how[row.tag], n); err != nil || got != want {
			t.Errorf("%s: the page says %s; it is a %s, %v", row.tag, got, want, err)
		}
		if (row.columns != "") != (row.how == "Query") {
			t.Errorf("%s: a %s with the columns %q", row.tag, row.how, row.columns)
		}
	}
}

var shownBy = regexp.MustCompile(`(?m)^- ([a-z/.]+): (Test\w+)$`)

// SECURITY.md may name only tests that exist.
func TestTestsNamedInSecurityExist(t *testing.T) {
	found := shownBy.FindAllStringSubmatch(readFile(t, "SECURITY.md"), -1)
	if len(found) < 20 {
		t.Errorf("only %d tests were found in SECURITY.md; has its form changed?", len(found))
	}
	for _, f := range found {
		files, err := filepath.Glob(filepath.Join(f[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(readFile(t, file), "func "+f[2]+"(t *testing.T)") }) {
			t.Errorf("SECURITY.md names %s of %s, which is not there", f[2], f[1])
		}
	}
}

var (
	caseName    = regexp.MustCompile(`(?m)^\t\{"([^"]+)", `)
	featureName = regexp.MustCompile(`(?m)^\t\t\{"([^"]+)", \w+Cases\},$`)
	listed      = regexp.MustCompile(`(?:^- |\| )([a-z]+(?: [a-z]+){0,2}): (.+?)(?: \||$)`)
	quoted      = regexp.MustCompile("`([a-z]+(?: [a-z]+){0,2}): ([^`]+)`")
)

// Pages may name only cases of the conformance suite that exist.
func TestCasesNamedAsProofExist(t *testing.T) {
	files, err := filepath.Glob("pgqrstest/conformance/*.go")
	if err != nil {
		t.Fatal(err)
	}
	cases, features := map[string]bool{}, map[string]bool{"processes": true} // conformance.Run does not run these
	for _, file := range files {
		source := readFile(t, file)
		for _, found := range caseName.FindAllStringSubmatch(source, -1) {
			cases[found[1]] = true
		}
		for _, found := range featureName.FindAllStringSubmatch(source, -1) {
			features[found[1]] = true
		}
	}
	for page, proof := range map[string]*regexp.Regexp{"docs/GUARANTEES.md": listed, "docs/SCENARIOS.md": quoted} {
		proofs := 0
		for _, line := range strings.Split(readFile(t, page), "\n") {
			for _, found := range proof.FindAllStringSubmatch(line, -1) {
				proofs++
				if !features[found[1]] || !cases[found[2]] {
					t.Errorf("%s names %q of the feature %q, which is not in the suite", page, found[2], found[1])
				}
			}
		}
		if proofs < 60 {
			t.Errorf("found only %d proofs in %s; has its form changed?", proofs, page)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A logged is a line that the library logs.
type logged struct {
	level string
	keys  []string
}

// documentedLogs returns the rows of the table in docs/OPERATIONS.md, by message.
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
		return ok && method.Sel.Name == "key"
	case *ast.SelectorExpr:
		return e.Sel.Name == "log"
	}
	return false
}

// keysOf returns the keys among arguments that alternate between keys and values.
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

// logCalls calls found for each line that a function logs. It also passes the keys that With has
// added to the logger.
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
		case "Log": // what failures write is checked where the failures are reported
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
