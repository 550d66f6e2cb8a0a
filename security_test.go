package pgqrs

import (
	"database/sql"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// percents matches the allowed texts with a per cent sign in statements: formats of SQLite's clock
// and durations, a pattern, a remainder. Every other per cent sign is suspect.
var percents = regexp.MustCompile(`'%Y-%m-%d %H:%M:%f'|'-?%\.6f seconds'|LIKE 'pgqrs%'`)

func TestStatementsHoldNothingToBeFilledIn(t *testing.T) {
	eachText(t, func(t *testing.T, d Dialect, path, text string) {
		for _, mark := range []string{"%", "{{", "${", "#{", "\x00"} {
			if strings.Contains(percents.ReplaceAllString(text, ""), mark) {
				t.Errorf("%s: %s has %q, as if something was put in there: %s", d, path, mark, text)
			}
		}
	})
}

// sources parses the library's own files.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	internal, err := filepath.Glob("internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	// These packages are for tests.
	names = slices.DeleteFunc(append(names, internal...), func(name string) bool {
		return strings.HasPrefix(name, "internal/dbtest/") || strings.HasPrefix(name, "internal/testkit/")
	})
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	if len(files) < 30 {
		t.Fatalf("only %d files were found", len(files))
	}
	return files
}

// dialectFile matches the files that have the statements and no logic.
var dialectFile = regexp.MustCompile(`^dialect_(postgres|sqlite|turso)(_\w+)?\.go$`)

// In the files of the dialects, a text is built of literals and constants only. Nothing is called
// to build a text.
func TestStatementsAreMadeOfConstants(t *testing.T) {
	files := sources(t)
	constants := map[string]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if decl, ok := n.(*ast.GenDecl); ok && decl.Tok == token.CONST {
				for _, spec := range decl.Specs {
					for _, id := range spec.(*ast.ValueSpec).Names {
						constants[id.Name] = true
					}
				}
			}
			return true
		})
	}
	sums := 0
	for name, file := range files {
		if !dialectFile.MatchString(name) {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if _, inPlace := n.Fun.(*ast.FuncLit); !inPlace || len(n.Args) > 0 {
					t.Errorf("%s calls %v; it should hold text alone", name, n.Fun)
				}
			case *ast.BinaryExpr:
				for _, part := range []ast.Expr{n.X, n.Y} {
					if !constant(part, constants) {
						t.Errorf("%s adds %T %v to a text; it should be a constant", name, part, part)
					}
				}
				sums++
			}
			return true
		})
	}
	if sums < 100 || len(constants) < 30 {
		t.Errorf("only %d sums and %d constants were found; the test has gone blind", sums, len(constants))
	}
}

func constant(e ast.Expr, constants map[string]bool) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return constants[e.Name]
	case *ast.BinaryExpr:
		return e.Op == token.ADD && constant(e.X, constants) && constant(e.Y, constants)
	default:
		return false
	}
}

// builtTexts are the statements that are built at run time, by file. Config.Schema has been checked
// to be a plain identifier. The name of a PRAGMA is fixed, and its value is a constant, a key in
// hexadecimal or the name of a known cipher.
var builtTexts = map[string]string{
	"schema.go":                 `c.store.dialect.schema.make`,
	"internal/dsn/connector.go": `PRAGMA `,
}

var looksLikeSQL = regexp.MustCompile(`^\s*(/\*|(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|BEGIN|SET|WITH|LOCK|SAVEPOINT)\s)`)

// Outside the dialects no text that looks like SQL is concatenated or formatted, except builtTexts.
func TestNoStatementIsBuiltFromInput(t *testing.T) {
	found := map[string]string{}
	for name, file := range sources(t) {
		if dialectFile.MatchString(name) {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			var parts []ast.Expr
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if n.Op == token.ADD {
					parts = []ast.Expr{n.X, n.Y}
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Sprintf", "Sprint", "Appendf", "Fprintf", "Join", "Replace", "ReplaceAll"}, f.Sel.Name) {
					parts = n.Args
				}
			}
			for _, part := range parts {
				if sel, ok := part.(*ast.SelectorExpr); ok && strings.Contains(types.ExprString(sel), ".dialect.") {
					text := types.ExprString(sel)
					if builtTexts[name] != text {
						t.Errorf("%s adds to the statement %s", name, text)
					}
					found[name] = text
				}
				lit, ok := part.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					continue
				}
				if text, err := strconv.Unquote(lit.Value); err == nil && looksLikeSQL.MatchString(text) {
					if builtTexts[name] != text {
						t.Errorf("%s puts together the statement %s", name, text)
					}
					found[name] = text
				}
			}
			return true
		})
	}
	for name, text := range builtTexts {
		if found[name] != text {
			t.Errorf("%s builds no %q any more; take it from the list", name, text)
		}
	}
}

// Migrations are executed as they are, except for the schema.
func TestMigrationsHoldNothingToBeFilledIn(t *testing.T) {
	n := 0
	err := fs.WalkDir(migrations, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		n++
		text, err := fs.ReadFile(migrations, path)
		for _, mark := range []string{"%s", "%d", "%v", "%q", "{{", "${"} {
			if strings.Contains(string(text), mark) {
				t.Errorf("%s has %q", path, mark)
			}
		}
		return err
	})
	if err != nil || n < 2 {
		t.Errorf("%d migrations, %v", n, err)
	}
}

func FuzzSchema(f *testing.F) {
	for _, name := range []string{"", "jobs", "_", "a$1b", "$a", "1a", `a"b`, `a"; DROP TABLE x; --`, "a.b", "a b", "ä", "a\x00", "\xff", "a\n", "a$", "${1}", strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		f.Add(name)
	}
	text := postgres.message.enqueue
	f.Fuzz(func(t *testing.T, name string) {
		plain := 0 < len(name) && len(name) <= 63 && !('0' <= name[0] && name[0] <= '9') && name[0] != '$'
		for _, r := range name {
			plain = plain && (isWord(r) || r == '$')
		}
		_, err := Config{Schema: name}.check(new(sql.DB), Postgres)
		if accepted := err == nil; accepted != (plain || name == "") {
			t.Fatalf("%q: %v", name, err)
		}
		if err == nil && name != "" && qualify(text, name) != qualifiedByHand(text, name) {
			t.Fatalf("%q becomes %s", name, qualify(text, name))
		}
		if _, err := (Config{Schema: name}).check(new(sql.DB), SQLite); (err == nil) != (name == "") {
			t.Fatalf("%q on SQLite: %v", name, err)
		}
	})
}

// stateCode matches a code of PostgreSQL's errors.
var stateCode = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// Only the dialects and the classification of errors in internal/sqlerr depend on the database.
func TestNothingElseBranchesOnTheDatabase(t *testing.T) {
	seen := 0
	for name, file := range sources(t) {
		if dialectFile.MatchString(name) || name == "dialect.go" || strings.Contains(name, "/") {
			continue
		}
		seen++
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if n.Name == "Postgres" || n.Name == "SQLite" || n.Name == "Turso" {
					t.Errorf("%s names the dialect %s; give the dialect a field", name, n.Name)
				}
			case *ast.BasicLit:
				text, err := strconv.Unquote(n.Value)
				if n.Kind == token.STRING && err == nil && stateCode.MatchString(text) && strings.ContainsAny(text, "0123456789") {
					t.Errorf("%s has the code %s; give internal/sqlerr a function", name, text)
				}
			}
			return true
		})
	}
	if seen < 25 {
		t.Errorf("only %d sources were found; the test has gone blind", seen)
	}
}
