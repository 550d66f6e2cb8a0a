package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/pprof"
	"strings"

	"github.com/google/pprof/profile"
)

// startProfile starts a CPU profile. When it is stopped, it is added to the file, which need not
// exist.
func startProfile(file string) (stop func() error, err error) {
	var spent bytes.Buffer
	if err := pprof.StartCPUProfile(&spent); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		p, err := profile.Parse(&spent)
		if err != nil {
			return err
		}
		return addProfile(file, p)
	}, nil
}

// addProfile merges a profile into the file.
func addProfile(file string, p *profile.Profile) error {
	before, err := readProfile(file)
	switch {
	case err == nil:
		if p, err = profile.Merge([]*profile.Profile{before, p}); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(p.Write(f), f.Close())
}

func readProfile(file string) (*profile.Profile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("read the profile %s: %w", file, err)
	}
	return p, nil
}

// The parts of a program that Shares distinguishes, by prefixes of function names. A sample counts
// for the first part on its stack, from the innermost call outwards. So an allocation counts for
// the function that makes it.
var parts = []struct {
	name     string
	prefixes []string
}{
	{"SQLite", []string{"github.com/ncruces/go-sqlite3-wasm", "github.com/ncruces/go-sqlite3/vfs", "github.com/ncruces/go-sqlite3/internal"}},
	{"driver", []string{"github.com/lib/pq", "github.com/ncruces/"}},
	{"database/sql", []string{"database/sql"}},
	{"JSON", []string{"encoding/json"}},
	{"benchmark", []string{"github.com/pgqrs/pgqrs-go/bench"}},
	{"library", []string{"github.com/pgqrs/pgqrs-go"}},
}

// Shares returns how a CPU profile divides among the parts. Samples of no part are the Go runtime's
// own, for its scheduler and garbage collector.
func Shares(file string) (map[string]float64, error) {
	p, err := readProfile(file)
	if err != nil {
		return nil, err
	}
	shares := map[string]float64{}
	total := 0.0
	for _, sample := range p.Sample {
		spent := float64(sample.Value[len(sample.Value)-1])
		shares[partOf(sample)] += spent
		total += spent
	}
	for name := range shares {
		shares[name] /= total
	}
	return shares, nil
}

// partOf returns the part of a stack, which begins with the innermost call.
func partOf(s *profile.Sample) string {
	for _, location := range s.Location {
		for _, line := range location.Line {
			for _, part := range parts {
				for _, prefix := range part.prefixes {
					if strings.HasPrefix(line.Function.Name, prefix) {
						return part.name
					}
				}
			}
		}
	}
	return "Go runtime"
}
