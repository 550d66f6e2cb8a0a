//go:build unix

package postgres

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// An installation has the paths of PostgreSQL's binaries.
type installation struct{ initdb, postgres, pgCtl string }

// debianBin is where Debian keeps the binaries of each version.
const debianBin = "/usr/lib/postgresql/*/bin"

// findInstallation searches PATH, and then the newest directory that matches the pattern. All three
// binaries come from one directory.
func findInstallation(debian string) (installation, error) {
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(initdb))
	}
	versions, err := filepath.Glob(debian)
	if err != nil {
		return installation{}, err
	}
	dirs = append(dirs, newestFirst(versions)...)
	for _, dir := range dirs {
		in := installation{filepath.Join(dir, "initdb"), filepath.Join(dir, "postgres"), filepath.Join(dir, "pg_ctl")}
		if executable(in.initdb) && executable(in.postgres) && executable(in.pgCtl) {
			return in, nil
		}
	}
	return installation{}, fmt.Errorf("%w (looked for initdb, postgres and pg_ctl on PATH and in %s)", ErrNotFound, debian)
}

// newestFirst sorts directories .../<major version>/bin.
func newestFirst(dirs []string) []string {
	version := func(dir string) float64 {
		// 9.6 was the last version with a dot
		v, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		return v
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	return dirs
}

func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

// An account is the user that runs the server. PostgreSQL refuses to run as root, so for root it is
// the user postgres, or else the user nobody. Otherwise it is the current user.
type account struct{ credential *syscall.Credential }

func findAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return account{}, fmt.Errorf("root needs another user to run postgres: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// mkdir makes a temporary directory that belongs to the account. The directory is in /tmp if the
// account might not be able to enter $TMPDIR, or if the path of a socket there would be too long.
func (a account) mkdir() (string, error) {
	base := os.TempDir()
	if a.credential != nil || len(filepath.Join(base, "pgqrs-4294967295", socket)) > maxSocket {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "pgqrs-")
	if err != nil || a.credential == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(a.credential.Uid), int(a.credential.Gid))
}

// command returns a command that the account runs. Signals of the terminal do not reach it.
func (a account) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: a.credential}
	return cmd
}
