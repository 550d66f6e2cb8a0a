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

// splitArguments splits at commas, but for those that go on about a list's items.
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

// A tag in the source that allTags does not know would be missing from the page unseen.
func TestNoStatementIsHidden(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	known := append(allTags(), "pgqrs:group.name") // the pattern, in a comment
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
	for _, name := range []string{"dialect.go", "dialect_workflow.go", "dialect_policy.go", "dialect_schedule.go", "dialect_group.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		addContracts(found, file)
	}
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
	query, exec := strings.Contains(contract, "Query;"), strings.Contains(contract, "Exec")
	switch {
	case strings.Contains(contract, "Exec, then Query;"):
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
			continue // it stands outside the dialects
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

// SECURITY.md may not name a test that is not there.
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
