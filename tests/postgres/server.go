//go:build unix

package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
)

// ErrNotFound says that PostgreSQL is not installed.
var ErrNotFound = errors.New("no PostgreSQL server is installed")

const (
	superuser = "pgqrs"
	socket    = ".s.PGSQL.5432" // the name that PostgreSQL gives it
	maxSocket = len(syscall.RawSockaddrUnix{}.Path) - 1
	patience  = time.Minute // for the server to start or to stop
)

// A Server is a PostgreSQL cluster in a temporary directory, and its server while it runs. Its
// methods must not be called concurrently.
type Server struct {
	bin     installation
	owner   account
	dir     string // has the socket, and the cluster in data
	janitor *janitor

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd and all its children are gone
}

// Start creates a cluster and starts its server. Settings such as "max_connections=10" come after
// the defaults and override them. By default fsync is off: committed work survives [Server.Kill],
// but would not survive a loss of power.
func Start(settings ...string) (*Server, error) {
	bin, err := findInstallation(debianBin)
	if err != nil {
		return nil, err
	}
	owner, err := findAccount()
	if err != nil {
		return nil, err
	}
	dir, err := owner.mkdir()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, owner: owner, dir: dir}
	if s.janitor, err = hireJanitor(owner, bin.pgCtl, dir, s.data()); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err = s.initdb(); err == nil {
		err = s.Start(settings...)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// DSN returns the connection string of the database postgres, in key=value form.
func (s *Server) DSN() string {
	return fmt.Sprintf("host='%s' port=5432 user=%s dbname=postgres sslmode=disable", s.dir, superuser)
}

// Start starts the server of a cluster that was stopped or killed. It returns once the server
// accepts connections. Settings of an earlier Start do not apply.
func (s *Server) Start(settings ...string) error {
	if s.running() {
		return errors.New("postgres already runs")
	}
	log := &serverLog{ready: make(chan struct{})}
	s.cmd = s.owner.command(s.dir, s.bin.postgres, append([]string{"-D", s.data()}, s.options(settings)...)...)
	s.cmd.Stdout = log
	s.cmd.Stderr = log
	s.cmd.WaitDelay = patience
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		defer close(exited)
		s.cmd.Wait() // returns once no backend holds the log's pipe open
	}()
	select {
	case <-log.ready:
		return nil
	case <-exited:
		return fmt.Errorf("postgres did not start:\n%s", log)
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("postgres was not ready after %v:\n%s", patience, log), s.Kill())
	}
}

func (s *Server) running() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// options returns the server's command-line settings. The last of two equal ones applies.
func (s *Server) options(settings []string) []string {
	var args []string
	for _, setting := range append([]string{
		"listen_addresses=",
		"unix_socket_directories=" + s.dir,
		"unix_socket_permissions=0700",
		// Every parallel test can fill its pool.
		fmt.Sprintf("max_connections=%d", max(200, (runtime.GOMAXPROCS(0)+1)*pool.Max)),
		"fsync=off",
	}, settings...) {
		args = append(args, "-c", setting)
	}
	return args
}

// Stop shuts the server down, and rolls open transactions back.
func (s *Server) Stop() error { return s.signal(syscall.SIGINT) }

// Kill ends the server like a crash. The next Start recovers.
func (s *Server) Kill() error { return s.signal(syscall.SIGKILL) }

// Abort shuts the server down at once, like pg_ctl's immediate mode. Connections get no other
// message, and the next Start recovers.
func (s *Server) Abort() error { return s.signal(syscall.SIGQUIT) }

// Restart stops the server and starts it with these settings.
func (s *Server) Restart(settings ...string) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start(settings...)
}

// Standby restarts the server as a hot standby without a primary. It recovers without end, and
// accepts connections that read.
func (s *Server) Standby(settings ...string) error {
	if err := s.Stop(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o644); err != nil {
		return err
	}
	return s.Start(settings...)
}

// signal sends a signal to the server and waits until the server and its backends are gone.
func (s *Server) signal(sig os.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%v to postgres: %w", sig, err)
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(2 * patience):
		return fmt.Errorf("postgres did not end %v after %v", 2*patience, sig)
	}
}

// Mkdir creates a directory that the server can write to. It is removed with the cluster.
func (s *Server) Mkdir() (string, error) {
	dir, err := os.MkdirTemp(s.dir, "disk-")
	if err != nil || s.owner.credential == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(s.owner.credential.Uid), int(s.owner.credential.Gid))
}

// Close stops the server, if it runs, and removes the cluster.
func (s *Server) Close() error {
	var err error
	if s.running() {
		// The server may be paused. Once it ends, its remaining processes are killed.
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		err = s.Abort()
	}
	return errors.Join(err, s.janitor.dismiss())
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) initdb() error {
	out, err := s.owner.command(s.dir, s.bin.initdb, "-D", s.data(), "-U", superuser,
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// A serverLog keeps the end of the server's log, and detects when the server is ready.
type serverLog struct {
	mu    sync.Mutex
	text  []byte
	ready chan struct{} // closed when the server accepts connections
	once  sync.Once
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if bytes.Contains(l.text, []byte("ready to accept connections")) || bytes.Contains(l.text, []byte("ready to accept read-only connections")) {
		l.once.Do(func() { close(l.ready) })
	}
	if n := len(l.text) - 16<<10; n > 0 {
		l.text = l.text[n:]
	}
	return len(p), nil
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
