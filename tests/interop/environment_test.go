//go:build unix

package interop_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// requirement pins the reference to the files of its release on PyPI: the source, and a wheel for
// each of the common platforms.
const requirement = `pgqrs==0.15.3 \
    --hash=sha256:f53f5c12be523d10348678efcbce5ae8f7b1c8990e1c89a2a63b3725861e262d \
    --hash=sha256:a435e9a69538cfaf628157dbd18187e4d9ce074f8fa8adafd73046c2a8969c2e \
    --hash=sha256:bb4e3b1deb11a67dd0099731abe168bc9bd4d6fc4c2fd0c5a45b1e65a44b8e9b \
    --hash=sha256:114905bf1d5c522d7ff20a19dd9c08c934bf0ca5a060f09cb6a45e5f72ff67ed \
    --hash=sha256:b04af1a5f3f178d0dc9c4567f4fcf5b4fb39fb93824266607a5c407aa4e3c6b6 \
    --hash=sha256:47fc21c254cf0bb78e8147130044847ec0d697656287ea479151e8ed2e037c8f \
    --hash=sha256:af0acac952c6d796191175192155cf6df5a7c86e96bd87dc44101f32f0e30262
`

// A build is a way to install the reference. The wheels of PyPI support PostgreSQL only. For SQLite
// the source is compiled once, without optimisation, which takes some minutes.
type build struct {
	name  string
	needs []string // programs
	pip   []string
	env   []string
}

var (
	wheel  = build{name: "wheel", needs: []string{"python3"}}
	source = build{
		name:  "sqlite",
		needs: []string{"python3", "cargo", "cc"},
		pip:   []string{"--no-binary=pgqrs", "--no-cache-dir"}, // pip would cache its build under the name of PyPI's file
		env: []string{"MATURIN_PEP517_ARGS=--locked --no-default-features --features sqlite",
			"CARGO_PROFILE_RELEASE_OPT_LEVEL=0", "CARGO_PROFILE_RELEASE_DEBUG=0", "CARGO_PROFILE_RELEASE_STRIP=true"},
	}
)

// errMissing says that Python or Rust is not installed.
var errMissing = errors.New("is missing")

// environments are the environments that this test binary has asked for.
var environments struct {
	sync.Mutex
	made map[string]func() (string, error)
}

// environment returns the directory of a Python virtual environment with the reference in it. The
// environment is made once on each machine, in the user's cache directory. If that is not possible
// the test is skipped, or fails in CI.
func environment(t *testing.T, b build) string {
	t.Helper()
	environments.Lock()
	made := environments.made[b.name]
	if made == nil {
		made = sync.OnceValues(b.make)
		if environments.made == nil {
			environments.made = map[string]func() (string, error){}
		}
		environments.made[b.name] = made
	}
	environments.Unlock()
	dir, err := made()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skipf("%v (Debian: apt-get install python3-venv, and for SQLite a cargo of 1.78 or newer)", err)
	}
	return dir
}

func pythonOf(dir string) string { return filepath.Join(dir, "bin", "python") }

// make makes the environment if it is missing. Other processes wait.
func (b build) make() (string, error) {
	for _, program := range b.needs {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%s %w", program, errMissing)
		}
	}
	version, err := b.command("python3", "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("python3 --version: %w: %s", err, version)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	// The name contains everything that the environment depends on, so another version makes
	// another environment.
	sum := sha256.Sum256([]byte(fmt.Sprint(string(version), requirement, b.pip, b.env)))
	dir := filepath.Join(cache, "pgqrs-interop", b.name+"-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	done := filepath.Join(dir, "complete")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	if err := b.install(dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

func (b build) install(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if out, err := b.command("python3", "-m", "venv", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("python3 -m venv: %w\n%s", err, out)
	}
	pinned := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(pinned, []byte(requirement), 0o644); err != nil {
		return err
	}
	// The reference imports none of its dependencies.
	pip := append([]string{"-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", pinned}, b.pip...)
	if out, err := b.command(pythonOf(dir), pip...).CombinedOutput(); err != nil {
		return fmt.Errorf("pip install: %w\n%s", err, out)
	}
	return nil
}

func (b build) command(name string, arg ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Env = append(os.Environ(), b.env...)
	_ = cancel // the process ends before it matters
	return cmd
}

// lock takes an exclusive lock on a file. The lock ends with the process at the latest.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// TestEnvironments makes the environments, to prepare them before the other tests.
func TestEnvironments(t *testing.T) {
	for _, b := range []build{wheel, source} {
		t.Run(b.name, func(t *testing.T) {
			out, err := exec.Command(pythonOf(environment(t, b)), "-c",
				"import importlib.metadata as m; print(m.version('pgqrs'))").CombinedOutput()
			if version := strings.TrimSpace(string(out)); err != nil || version != "0.15.3" {
				t.Fatalf("version %q, %v; want 0.15.3", version, err)
			}
		})
	}
}
