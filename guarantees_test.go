package pgqrs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	caseName    = regexp.MustCompile(`(?m)^\t\{"([^"]+)", `)
	featureName = regexp.MustCompile(`(?m)^\t\t\{"([^"]+)", \w+Cases\},$`)
	listed      = regexp.MustCompile(`(?:^- |\| )([a-z]+(?: [a-z]+){0,2}): (.+?)(?: \||$)`)
	quoted      = regexp.MustCompile("`([a-z]+(?: [a-z]+){0,2}): ([^`]+)`")
)

// The pages that name cases of the conformance suite as proof may not name
// what is not there.
func TestCasesNamedAsProofExist(t *testing.T) {
	files, err := filepath.Glob("pgqrstest/*.go")
	if err != nil {
		t.Fatal(err)
	}
	cases, features := map[string]bool{}, map[string]bool{"processes": true} // which is not run by Conformance
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
