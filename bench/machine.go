package bench

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// A Machine describes the machine on which a report was made.
type Machine struct {
	System     string // operating system, architecture
	CPU        string
	Cores      int
	Memory     string
	Filesystem string // of the databases
	Go         string
	Modules    []string // path and version of the drivers and of the measured modules
	LoadBefore string   // the load average, if the system has one
	LoadAfter  string
}

// measured are the modules whose versions matter.
var measured = []string{
	"github.com/lib/pq", "github.com/jackc/pgx/v5", "github.com/ncruces/go-sqlite3", "github.com/mattn/go-sqlite3", "modernc.org/sqlite",
	"github.com/riverqueue/river", "github.com/riverqueue/river/riverdriver/riverpgxv5", "github.com/riverqueue/river/riverdriver/riversqlite",
	"github.com/mikestefanello/backlite", "maragu.dev/goqite", "github.com/dbos-inc/dbos-transact-golang",
}

func machineOf(dir string) Machine {
	m := Machine{
		System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(),
		CPU: field("/proc/cpuinfo", "model name"), Memory: field("/proc/meminfo", "MemTotal"), Filesystem: filesystem(dir), LoadBefore: loadAverage(),
	}
	versions := moduleVersions()
	for _, path := range measured {
		if v := versions[path]; v != "" {
			m.Modules = append(m.Modules, path+" "+v)
		}
	}
	return m
}

// moduleVersions returns the versions of the modules in this program and in cmd/mattn. Both are
// built from one go.mod, which is read if the binary does not contain the versions.
func moduleVersions() map[string]string {
	versions := map[string]string{}
	if text, err := os.ReadFile("go.mod"); err == nil {
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
			if len(words) >= 2 && slices.Contains(measured, words[0]) {
				versions[words[0]] = words[1]
			}
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			versions[d.Path] = d.Version
		}
	}
	return versions
}

// field returns the value of the first line of a file that begins with a name, or "unknown".
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// filesystem returns the type and the device of the file system of a directory.
func filesystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "unknown"
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "unknown"
	}
	best, found := "", "unknown"
	for line := range strings.Lines(string(mounts)) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		at := words[1]
		if (dir == at || at == "/" || strings.HasPrefix(dir, at+"/")) && len(at) >= len(best) {
			best, found = at, fmt.Sprintf("%s on %s", words[2], words[0])
		}
	}
	return found
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	words := strings.Fields(string(text))
	return strings.Join(words[:min(3, len(words))], " ")
}
