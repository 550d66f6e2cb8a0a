package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every mutation applies to the library, and leaves no trace.
func TestEveryMutationApplies(t *testing.T) {
	for _, m := range all(t) {
		dir := t.TempDir()
		before := map[string]string{}
		for _, e := range m.edits {
			text, err := os.ReadFile(filepath.Join("../../..", e.file))
			if err != nil {
				t.Fatalf("mutation %s: %v", m.name, err)
			}
			before[e.file] = string(text)
			file := filepath.Join(dir, e.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		restore, err := m.apply(dir)
		if err != nil {
			t.Error(err)
		}
		if err := restore(); err != nil {
			t.Error(err)
		}
		for file, want := range before {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(text) != want {
				t.Errorf("mutation %s is not taken back from %s: %v", m.name, file, err)
			}
		}
	}
}

// Every guarantee of the page has a mutation, and every mutation has a guarantee.
func TestEveryGuaranteeHasAMutation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/GUARANTEES.md")
	if err != nil {
		t.Fatal(err)
	}
	has := map[int]bool{}
	for _, m := range all(t) {
		has[m.guarantee] = true
	}
	n := 0
	for _, line := range strings.Split(string(page), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			if n++; !has[n] {
				t.Errorf("guarantee %s has no mutation", title)
			}
		}
	}
	for guarantee := range has {
		if guarantee < 1 || guarantee > n {
			t.Errorf("there is a mutation for guarantee %d of %d", guarantee, n)
		}
	}
}

func all(t *testing.T) []mutation {
	t.Helper()
	list, err := parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"a (1): b\nin f\n-x":         "no edit or no test",
		"a (1): b\ntest p q":         "no edit or no test",
		"a (1): b\nin f\ntest p q":   "does not say what to replace in f",
		"a (1): b\nin f\n+x":         "cannot make out",
		"a (1): b\nin f\n-x\n+y\n-z": "line 5",
		"in f":                       "before the first mutation",
		"a (1): b\n-x":               "before a file",
		"a (1): b\nin f\n-x\ntest p": "names no test",
		"a (1): b\nin f\n-x\ntest p q\na (1): b\nin f\n-x\ntest p q": "two mutations a",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse(%q) says %v, want %q", text, err, want)
		}
	}
}

func TestAMutationThatDoesNotApplyIsNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("x y x"), 0o666); err != nil {
		t.Fatal(err)
	}
	list, err := parse("wanted (1): b\nin f\n-y\n+z\nin f\n-x\ntest p q")
	if err != nil {
		t.Fatal(err)
	}
	restore, err := list[0].apply(dir)
	if err == nil || !strings.Contains(err.Error(), "mutation wanted") || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("apply says %v", err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "x y x" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestFirstFailure(t *testing.T) {
	for out, want := range map[string]string{
		`{"Action":"pass","Test":"A"}{"Action":"fail","Test":"B/c"}{"Action":"fail","Test":"B"}`: "B/c, passed [A], <nil>",
		`{"Action":"pass","Test":"A"}{"Action":"pass"}`:                                          ", passed [A], <nil>",
		`{"Action":"fail"}`: "the package, passed [], <nil>",
		`{"Action":"build-output","Output":"bad"}{"Action":"build-fail"}{"Action":"fail"}`: ", passed [], does not compile:\nbad",
	} {
		failed, passed, err := firstFailure(strings.NewReader(out))
		if got := strings.TrimSpace(strings.Join([]string{failed, "passed [" + strings.Join(passed, " ") + "]", errorText(err)}, ", ")); got != want {
			t.Errorf("of %s: %q, want %q", out, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return "<nil>"
	}
	return err.Error()
}

func TestTargetNamesWholeTests(t *testing.T) {
	test, err := parseTarget("p lease: a (lease) is *kept*, 1.5 s")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"TestConformance/lease/a_(lease)_is_*kept*,_1.5_s":   true,
		"TestConformance/lease/a_(lease)_is_*kept*,_1x5_s":   false,
		"TestConformance/lease":                              false,
		"TestConformance/lease/a_(lease)_is_*kept*,_1.5_s/x": false,
	} {
		if test.names(name) != want {
			t.Errorf("%v names %s: %v, want %v", test, name, !want, want)
		}
	}
}
