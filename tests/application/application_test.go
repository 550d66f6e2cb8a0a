// Package application_test adds pgqrs to an application that is older than the drivers of the
// tests. It checks that no dependency of the application changes its version.
package application_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The application before pgqrs is added: its Go version and its driver.
const (
	oldGo = "1.24"
	oldPq = "v1.10.9"
)

// modules are what an application can add, with a use of each and the modules that come along.
var modules = []struct {
	path, use string
	added     []string
}{
	{"pgqrs-go", `_ = pgqrs.Config{}.New`, nil},
	{"pgqrs-go/dashboard", `_ = dashboard.Handler`, nil},
	{"pgqrs-go/notifypgqrs", `_ = notifypgqrs.Notifier{}`, nil},
	{"pgqrs-go/cronpgqrs", `_ = cronpgqrs.Parse`, []string{"github.com/robfig/cron/v3"}},
	{"pgqrs-go/mockpgqrs", `_ = mockpgqrs.ExpectEnqueue`, []string{"github.com/DATA-DOG/go-sqlmock"}},
	{"pgqrs-go/otelpgqrs", `_ = otelpgqrs.New`, []string{
		"github.com/go-logr/logr", "github.com/go-logr/stdr",
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/trace",
	}},
}

func TestAnOldApplicationKeepsItsGoAndItsDriver(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		t.Run(m.path, func(t *testing.T) {
			app := newApplication(t, root, m.path, m.use)
			app.run(t, "go", "mod", "tidy")
			if version := strings.TrimSpace(app.run(t, "go", "list", "-m", "-f", "{{.GoVersion}}")); version != oldGo {
				t.Errorf("the application's go directive is now %s, want %s", version, oldGo)
			}
			required := app.required(t)
			if version := required["github.com/lib/pq"]; version != oldPq {
				t.Errorf("the application's lib/pq is now %s, want %s", version, oldPq)
			}
			delete(required, "github.com/lib/pq")
			var added []string
			for _, path := range slices.Sorted(maps.Keys(required)) {
				if !strings.HasPrefix(path, "github.com/pgqrs/") {
					added = append(added, path)
				}
			}
			if !slices.Equal(added, m.added) {
				t.Errorf("these modules came along: %q, want %q", added, m.added)
			}
			app.run(t, "go", "build", "-o", filepath.Join(t.TempDir(), "application"), ".")
		})
	}
}

// An application is a module in a directory of its own.
type application struct{ dir string }

// newApplication writes an application that uses a package of pgqrs.
func newApplication(t *testing.T, root, path, use string) application {
	t.Helper()
	app := application{t.TempDir()}
	module := fmt.Sprintf("module example.com/application\n\ngo %s\n\nrequire github.com/lib/pq %s\n", oldGo, oldPq)
	for _, name := range []string{"", "/notifypgqrs", "/cronpgqrs", "/mockpgqrs", "/otelpgqrs"} {
		module += fmt.Sprintf("\nreplace github.com/pgqrs/pgqrs-go%s => %s\n", name, filepath.Join(root, name))
	}
	program := fmt.Sprintf("package main\n\nimport (\n\t_ \"github.com/lib/pq\"\n\t%q\n)\n\nfunc main() { %s }\n", "github.com/pgqrs/"+path, use)
	for name, text := range map[string]string{"go.mod": module, "main.go": program} {
		if err := os.WriteFile(filepath.Join(app.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return app
}

// run runs a command in the application, and returns what it prints.
func (a application) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &failure)
	}
	return string(output)
}

// required returns the versions of the modules that the application requires.
func (a application) required(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && strings.Contains(fields[0], "/") && strings.HasPrefix(fields[1], "v") && !strings.HasPrefix(line, "replace") {
			versions[fields[0]] = fields[1]
		}
	}
	return versions
}
