//go:build unix

package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// poolerPort distinguishes the pooler's socket from the server's socket in the same directory.
const poolerPort = 6432

// Pooler starts pgbouncer in front of a server, in transaction mode: each transaction of a client
// uses any free server connection. Pooler returns a DSN for clients, and stops pgbouncer when the
// test ends. The server connections have the given schema as their search_path.
//
// The binary pgbouncer is taken from PATH, or else from /usr/sbin. If it is missing the test fails
// if CI is set in the environment, and is skipped otherwise.
func Pooler(t testing.TB, s *Server, schema string) (dsn string) {
	t.Helper()
	bin, err := findPooler()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("%v: install it (Debian: apt-get install pgbouncer)", err)
	}
	if err == nil {
		dsn, err = s.startPooler(t, bin, schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer is installed")
}

func (s *Server) startPooler(t testing.TB, bin, schema string) (dsn string, err error) {
	t.Helper()
	dir, err := s.Mkdir()
	if err != nil {
		return "", err
	}
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "pgbouncer.ini")
	err = errors.Join(os.WriteFile(users, fmt.Appendf(nil, "%q \"\"\n", superuser), 0o644), os.WriteFile(config, fmt.Appendf(nil, `
[databases]
postgres = host=%s port=5432 user=%s connect_query='SET search_path TO %s'
[pgbouncer]
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
listen_port = %d
unix_socket_dir = %s
auth_type = trust
auth_file = %s
ignore_startup_parameters = extra_float_digits
`, s.dir, superuser, schema, poolerPort, dir, users), 0o644))
	if err != nil {
		return "", err
	}
	log := &serverLog{ready: make(chan struct{})}
	cmd := s.owner.command(dir, bin, config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start pgbouncer: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // at once
		<-exited
	})
	return s.awaitPooler(dir, log, exited)
}

// awaitPooler returns the DSN of a pooler once its socket is there.
func (s *Server) awaitPooler(dir string, log *serverLog, exited chan error) (string, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	socket := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(poolerPort))
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return strings.NewReplacer(s.dir, dir, "port=5432", "port="+strconv.Itoa(poolerPort)).Replace(s.DSN()), nil
		}
		select {
		case <-tick.C:
		case err := <-exited:
			exited <- err
			return "", fmt.Errorf("pgbouncer did not start: %v\n%s", err, log)
		case <-deadline:
			return "", fmt.Errorf("pgbouncer was not ready after %v:\n%s", patience, log)
		}
	}
}
