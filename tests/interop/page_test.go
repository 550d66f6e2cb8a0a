//go:build unix

package interop_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The page names every proof, and nothing else.
func TestThePageNamesTheProofs(t *testing.T) {
	text, err := os.ReadFile("../../docs/INTEROP.md")
	must(t, err)
	page := string(text)
	known := map[string]bool{}
	for group, proofs := range map[string][]proof{
		"install": installProofs, "messages": messagesProofs, "workers": workersProofs,
		"workflows": workflowsProofs, "differences": differencesProofs, "limits": limitsProofs,
	} {
		for _, x := range proofs {
			name := group + ": " + x.sentence
			known[name] = true
			if strings.Count(page, "`"+name+"`") != 1 {
				t.Errorf("docs/INTEROP.md names %q %d times; want once", name, strings.Count(page, "`"+name+"`"))
			}
		}
	}
	for _, found := range regexp.MustCompile("`((?:install|messages|workers|workflows|differences|limits): [^`]+)`").FindAllStringSubmatch(page, -1) {
		if !known[found[1]] {
			t.Errorf("docs/INTEROP.md names %q, which is no proof", found[1])
		}
	}
}
