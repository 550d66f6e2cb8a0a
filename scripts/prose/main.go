// Prose checks the comments and pages of the repository against the rules of CONTRIBUTING.md.
//
//	go run ./scripts/prose            checks the repository
//	go run ./scripts/prose -list      also lists every sentence that breaks a rule
//	go run ./scripts/prose -list FILE...
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The limits of a page, of all pages together, and of all comments together.
const (
	maxColumns    = 100  // of a comment line
	longSentence  = 30   // words
	maxLong       = 0.05 // of the sentences of a page
	maxAverage    = 16.0 // words a sentence of a page
	maxSemicolons = 0.03 // of all sentences
)

func main() {
	list := flag.Bool("list", false, "list each sentence that breaks a rule")
	flag.Parse()
	files, err := find(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(2)
	}
	r := &report{}
	for _, file := range files {
		if err := r.read(file); err != nil {
			fmt.Fprintln(os.Stderr, "prose:", err)
			os.Exit(2)
		}
	}
	failures := r.failures()
	if *list {
		for _, f := range r.findings {
			fmt.Println(f)
		}
	}
	fmt.Print(r.summary())
	for _, f := range failures {
		fmt.Println("FAIL:", f)
	}
	if len(failures) > 0 {
		os.Exit(1)
	}
}

// find returns the files to check: those that are named, or all sources and pages.
func find(named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	var files []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

// A counter counts the sentences of one page, or of many.
type counter struct{ sentences, words, long, semicolons, openings, banned int }

func (c *counter) add(other counter) {
	c.sentences += other.sentences
	c.words += other.words
	c.long += other.long
	c.semicolons += other.semicolons
	c.openings += other.openings
	c.banned += other.banned
}

func (c counter) average() float64 { return share(c.words, c.sentences) }

func share(n, of int) float64 { return float64(n) / float64(max(1, of)) }

// A report has the results of the check.
type report struct {
	pages    map[string]counter
	exported counter // doc comments of exported names
	internal counter // all other comments
	wide     int     // comment lines
	findings []string
}

// read checks a file.
func (r *report) read(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.HasSuffix(file, ".md") {
		if r.pages == nil {
			r.pages = map[string]counter{}
		}
		var c counter
		for _, p := range paragraphsOfPage(string(text)) {
			c.add(r.check(file, p, true))
		}
		r.pages[file] = c
		return nil
	}
	comments, err := commentsOf(file, text)
	if err != nil {
		return err
	}
	for _, c := range comments {
		for _, line := range c.wide {
			r.wide++
			r.find(file, line, "comment line of more than 100 columns", "")
		}
		for _, p := range c.paragraphs {
			counted := r.check(file, p, c.exported)
			if c.exported {
				r.exported.add(counted)
			} else {
				r.internal.add(counted)
			}
		}
	}
	return nil
}

// check counts the sentences of a paragraph. A strict paragraph may have no banned words.
func (r *report) check(file string, p paragraph, strict bool) counter {
	var c counter
	for _, s := range sentencesOf(p.text) {
		words := len(strings.Fields(s))
		c.sentences++
		c.words += words
		if words > longSentence {
			c.long++
			r.find(file, p.line, fmt.Sprintf("%d words", words), s)
		}
		if strings.Contains(s, ";") {
			c.semicolons++
			r.find(file, p.line, "semicolon", s)
		}
		if word := opening(s); word != "" {
			c.openings++
			if strict {
				r.find(file, p.line, "begins with "+word, s)
			}
		}
		for _, phrase := range bannedIn(s) {
			c.banned++
			if strict {
				r.find(file, p.line, fmt.Sprintf("%q", phrase), s)
			}
		}
	}
	return c
}

func (r *report) find(file string, line int, what, sentence string) {
	r.findings = append(r.findings, strings.TrimSuffix(fmt.Sprintf("%s:%d: %s: %.160s", file, line, what, sentence), ": "))
}

// summary returns a table of the counts.
func (r *report) summary() string {
	var b strings.Builder
	row := func(name string, c counter) {
		fmt.Fprintf(&b, "%-28s %6d sentences, %4.1f words, %4.1f %% long, %4.1f %% semicolons, %d openings, %d banned\n",
			name, c.sentences, c.average(), 100*share(c.long, c.sentences), 100*share(c.semicolons, c.sentences), c.openings, c.banned)
	}
	for _, file := range sortedKeys(r.pages) {
		row(file, r.pages[file])
	}
	row("exported comments", r.exported)
	row("other comments", r.internal)
	return b.String()
}

// failures returns the rules that are broken.
func (r *report) failures() []string {
	var list []string
	fail := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	all := r.exported
	for _, file := range sortedKeys(r.pages) {
		c := r.pages[file]
		all.add(c)
		if c.average() > maxAverage {
			fail("%s has %.1f words a sentence, %.0f allowed", file, c.average(), maxAverage)
		}
		if c.long > max(1, int(maxLong*float64(c.sentences))) {
			fail("%s has %d sentences of more than %d words, %.0f %% allowed", file, c.long, longSentence, 100*maxLong)
		}
	}
	if all.openings > 0 {
		fail("%d sentences of pages and exported comments begin with a banned word", all.openings)
	}
	if all.banned > 0 {
		fail("%d banned phrases in pages and exported comments", all.banned)
	}
	all.add(r.internal)
	if s := share(all.semicolons, all.sentences); s > maxSemicolons {
		fail("%.1f %% of the sentences have a semicolon, %.0f %% allowed", 100*s, 100*maxSemicolons)
	}
	if r.wide > 0 {
		fail("%d comment lines have more than %d columns", r.wide, maxColumns)
	}
	return list
}

func sortedKeys(m map[string]counter) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
