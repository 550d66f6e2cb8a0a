package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A paragraph is running text, or an item of a list, without markup.
type paragraph struct {
	line int
	text string
}

// A comment is one group of comment lines.
type comment struct {
	exported   bool
	paragraphs []paragraph
	wide       []int // lines of more columns than allowed
}

var directive = regexp.MustCompile(`^//(go:|nolint|line |export |extern |lint:)`)

// commentsOf returns the comments of a source.
func commentsOf(file string, text []byte) ([]comment, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	exported := exportedDocs(tree)
	lines := strings.Split(string(text), "\n")
	var list []comment
	for _, group := range tree.Comments {
		c := comment{exported: exported[group] && !strings.HasSuffix(file, "_test.go")}
		first := fset.Position(group.Pos())
		c.paragraphs = paragraphsOfComment(group, first.Line)
		for n := first.Line; n <= fset.Position(group.End()).Line; n++ {
			line := lines[n-1]
			at := strings.Index(line, "//")
			if alone := at >= 0 && strings.TrimSpace(line[:at]) == ""; alone && !directive.MatchString(line[at:]) && columns(line) > maxColumns {
				c.wide = append(c.wide, n)
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// columns returns the width of a line. A tab counts as four columns.
func columns(line string) int {
	return utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
}

// exportedDocs returns the doc comments of a package and of its exported names.
func exportedDocs(tree *ast.File) map[*ast.CommentGroup]bool {
	docs := map[*ast.CommentGroup]bool{tree.Doc: true}
	for _, decl := range tree.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && exportedReceiver(d) {
				docs[d.Doc] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				exportedSpec(docs, d, spec)
			}
		}
	}
	delete(docs, nil)
	return docs
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	name := ""
	ast.Inspect(d.Recv, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			name = id.Name
			if ast.IsExported(name) {
				return false
			}
		}
		return true
	})
	return ast.IsExported(name)
}

func exportedSpec(docs map[*ast.CommentGroup]bool, d *ast.GenDecl, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		docs[d.Doc], docs[s.Doc], docs[s.Comment] = true, true, true
		if st, ok := s.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				if len(f.Names) == 0 || f.Names[0].IsExported() {
					docs[f.Doc], docs[f.Comment] = true, true
				}
			}
		}
	case *ast.ValueSpec:
		if s.Names[0].IsExported() {
			docs[d.Doc], docs[s.Doc], docs[s.Comment] = true, true, true
		}
	}
}

// paragraphsOfComment leaves out code, which is indented.
func paragraphsOfComment(group *ast.CommentGroup, first int) []paragraph {
	var lines []string
	for _, c := range group.List {
		for _, line := range strings.Split(c.Text, "\n") {
			line = strings.TrimSuffix(strings.TrimPrefix(line, "/*"), "*/")
			if directive.MatchString(line) {
				line = ""
			}
			lines = append(lines, strings.TrimPrefix(line, "//"))
		}
	}
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "     "):
			lines[i] = ""
		case strings.HasPrefix(strings.TrimSpace(line), "# "):
			lines[i] = ""
		}
	}
	return join(lines, first)
}

var (
	item    = regexp.MustCompile(`^\s*([-*]|\d+\.) `)
	link    = regexp.MustCompile(`\[([^\]]*)\](\([^)]*\))?`)
	marks   = strings.NewReplacer("**", "", "`", "", "|", " ")
	caseRow = regexp.MustCompile(`^- [\w ./]+: `)
)

// paragraphsOfPage leaves out code, tables, headings, and the names of cases.
func paragraphsOfPage(text string) []paragraph {
	lines := strings.Split(text, "\n")
	code := false
	for i, line := range lines {
		trimmed := strings.TrimSpace(line)
		fence := strings.HasPrefix(trimmed, "```")
		if fence {
			code = !code
		}
		after := i > 0 && lines[i-1] == ""
		indented := after && (strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t"))
		switch {
		case code || fence || indented || strings.HasPrefix(trimmed, "|") || strings.HasPrefix(trimmed, "#") || caseRow.MatchString(line) && strings.Contains(text, "# Guarantees"):
			lines[i] = ""
		}
	}
	return join(lines, 1)
}

// join makes paragraphs of lines. An empty line ends one, and an item of a list begins one.
func join(lines []string, first int) []paragraph {
	var list []paragraph
	open := false
	for i, line := range lines {
		text := strings.TrimSpace(line)
		switch {
		case text == "":
			open = false
		case !open || item.MatchString(line):
			list = append(list, paragraph{first + i, item.ReplaceAllString(text+" ", "")})
			open = true
		default:
			list[len(list)-1].text += " " + text
		}
	}
	for i := range list {
		list[i].text = marks.Replace(link.ReplaceAllString(list[i].text, "$1"))
	}
	return list
}

// A sentence ends with a full stop, a question mark or an exclamation mark, and a colon ends one
// before a list or an example.
var sentenceEnd = regexp.MustCompile(`[.!?]["')]*\s+`)

func sentencesOf(text string) []string {
	var list []string
	for text = strings.TrimSpace(text); text != ""; {
		at := nextEnd(text)
		s := strings.TrimSpace(text[:at])
		if strings.ContainsFunc(s, func(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' }) {
			list = append(list, s)
		}
		text = text[at:]
	}
	return list
}

// nextEnd returns where the first sentence of a text ends. A small letter after a full stop goes on
// with the sentence, as after "e.g.".
func nextEnd(text string) int {
	for from := 0; ; {
		found := sentenceEnd.FindStringIndex(text[from:])
		if found == nil {
			return len(text)
		}
		end := from + found[1]
		if end == len(text) || !('a' <= text[end] && text[end] <= 'z') {
			return end
		}
		from = end
	}
}

var openings = regexp.MustCompile(`^["'(]*(What|Who|Whoever|Of|That|Those|None)\b`)

// opening returns the banned word that a sentence begins with. A question may begin with any.
func opening(sentence string) string {
	found := openings.FindStringSubmatch(sentence)
	if found == nil || strings.HasSuffix(sentence, "?") {
		return ""
	}
	return found[1]
}

var banned = regexp.MustCompile(`(?i)\b(but for|anew|to be had|that one|such a one|such ones|stands? aside|keeps? company|is made up for|is let go|are let go|lets go|takes back|is told|are told|hears?|obeys?)\b`)

// bannedIn returns the phrases of a sentence that no sentence may have.
func bannedIn(sentence string) []string {
	found := banned.FindAllString(sentence, -1)
	for i := range found {
		found[i] = strings.ToLower(found[i])
	}
	return found
}
