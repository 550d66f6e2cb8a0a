package turso

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	//go:embed package.json
	manifest []byte
	//go:embed package-lock.json
	lock []byte
)

// errMissing is returned if the engine is not available.
var errMissing = errors.New("turso: the engine runs in Node: install node and npm (on Debian the packages nodejs and npm), and let npm reach its registry")

// Require starts the engine. If the engine is not available, Require fails the test if CI is set in
// the environment, and skips the test otherwise.
func Require(t testing.TB) {
	t.Helper()
	_, err := running()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && os.Getenv("CI") == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// engine returns the directory with the engine. If necessary, npm downloads the engine first. If
// several processes do so at once, the first to finish wins.
func engine() (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w (%w)", errMissing, err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // there is no home directory
	}
	cache = filepath.Join(cache, "pgqrs-tests")
	dir := filepath.Join(cache, fmt.Sprintf("turso-%x", sha256.Sum256(lock))[:22])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) // does nothing after the rename
	for name, content := range map[string][]byte{"package.json": manifest, "package-lock.json": lock} {
		if err := os.WriteFile(filepath.Join(fresh, name), content, 0o644); err != nil {
			return "", err
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = fresh
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w (npm ci: %w\n%s)", errMissing, err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			return "", err
		}
	}
	return dir, nil
}
