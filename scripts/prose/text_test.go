package main

import (
	"slices"
	"testing"
)

func TestSentences(t *testing.T) {
	got := sentencesOf("It returns nil. It waits, e.g. for a lock (which is rare.) Is that so? 1.5 s pass.")
	want := []string{"It returns nil.", "It waits, e.g. for a lock (which is rare.)", "Is that so?", "1.5 s pass."}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWhatBreaksARule(t *testing.T) {
	page := "# Title; not counted\n\nWhat runs is one; it hears.\n\n- None of them. But for\n  two of them.\n\n    code; is left out\n\n| a table; too |\n"
	r := &report{}
	var c counter
	for _, p := range paragraphsOfPage(page) {
		c.add(r.check("page.md", p, true))
	}
	want := counter{sentences: 3, words: 14, semicolons: 1, openings: 2, banned: 2}
	if c != want {
		t.Errorf("counted %+v, want %+v", c, want)
	}
	if len(r.findings) != 5 {
		t.Errorf("%q", r.findings)
	}
}

func TestComments(t *testing.T) {
	source := "// Package p does. Who knows.\npackage p\n\n// F returns\n// one value.\n//\n//\tcode; here\nfunc F() {}\n\n//go:noinline\nfunc g() {} // of that; which\n"
	r := &report{}
	comments, err := commentsOf("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var exported, others counter
	for _, c := range comments {
		for _, p := range c.paragraphs {
			if c.exported {
				exported.add(r.check("p.go", p, true))
			} else {
				others.add(r.check("p.go", p, false))
			}
		}
	}
	if exported.sentences != 3 || exported.openings != 1 || others.sentences != 1 || others.semicolons != 1 {
		t.Errorf("exported %+v, others %+v", exported, others)
	}
}
