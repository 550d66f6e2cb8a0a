//go:build unix

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// serverSettings are the settings of the measured server that differ from PostgreSQL's defaults.
// They make no commit less durable.
var serverSettings = []string{
	"fsync=on", "synchronous_commit=on", "full_page_writes=on",
	"shared_buffers=512MB", "max_wal_size=8GB", "checkpoint_timeout=30min", "max_connections=200",
}

// A server is a PostgreSQL cluster in a directory of its own. It listens only on a unix socket in
// that directory. It ends with this process, even if the process is killed.
type server struct {
	dir     string
	cmd     *exec.Cmd
	janitor *exec.Cmd
	dismiss io.Closer // the janitor's standard input
	exited  chan struct{}
}

// janitorScript waits for the end of its input, which comes when this process dies, and cleans up.
const janitorScript = `cat >/dev/null
"$1/pg_ctl" stop --silent --mode=immediate --pgdata="$2/data"
rm -rf "$2"`

// startServer creates a cluster below a directory and starts its server.
func startServer(below string) (*server, error) {
	bin, err := serverBinaries()
	if err != nil {
		return nil, err
	}
	owner, err := serverOwner()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(below, "pg-")
	if err != nil {
		return nil, err
	}
	if owner != nil {
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	s := &server{dir: dir, exited: make(chan struct{})}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: owner}
		return cmd
	}
	s.janitor = command("/bin/sh", "-c", janitorScript, "janitor", bin, dir)
	if err == nil {
		s.dismiss, err = s.janitor.StdinPipe()
	}
	if err == nil {
		err = s.janitor.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	out, err := command(filepath.Join(bin, "initdb"), "-D", dir+"/data", "-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), s.stop())
	}
	args := []string{"-D", dir + "/data", "-c", "listen_addresses=", "-c", "unix_socket_directories=" + dir}
	for _, setting := range serverSettings {
		args = append(args, "-c", setting)
	}
	s.cmd = command(filepath.Join(bin, "postgres"), args...)
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// start starts the server and waits until it accepts connections.
func (s *server) start() error {
	log := &serverLog{ready: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
	select {
	case <-log.ready:
		return nil
	case <-s.exited:
		return fmt.Errorf("postgres did not start:\n%s", log.text.String())
	case <-time.After(time.Minute):
		return errors.New("postgres was not ready after a minute")
	}
}

// dsn returns the connection string of the server's database.
func (s *server) dsn() string {
	return fmt.Sprintf("host=%s port=5432 user=bench dbname=postgres sslmode=disable", s.dir)
}

// stop stops the server and removes its directory.
func (s *server) stop() error {
	s.dismiss.Close()
	return s.janitor.Wait()
}

// A serverLog detects in the log when the server is ready.
type serverLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < 1<<20 {
		l.text.Write(p)
	}
	if bytes.Contains(l.text.Bytes(), []byte("ready to accept connections")) {
		l.once.Do(func() { close(l.ready) })
	}
	return len(p), nil
}

// serverBinaries returns the directory of PostgreSQL's binaries: the one on PATH, or Debian's
// newest.
func serverBinaries() (string, error) {
	if initdb, err := exec.LookPath("initdb"); err == nil {
		dir := filepath.Dir(initdb)
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(dirs) == 0 {
		return "", errors.Join(errors.New("no initdb on PATH and none in /usr/lib/postgresql/*/bin; give -postgres the DSN of a running server"), err)
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return version(a) - version(b) }), nil
}

// version returns the number in .../<number>/bin.
func version(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0 // not one of Debian's
	}
	return n
}

// serverOwner returns the user that runs the server. PostgreSQL refuses root, so for root it is the
// user postgres. Otherwise it is the current user.
func serverOwner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("root needs a user postgres to run the server as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// serverTime returns the processor time of the server's processes, or 0 if the system is not Linux.
func (e *engine) serverTime() time.Duration {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	var ticks int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended meanwhile
		}
		ticks += processTicks(string(text), e.server.cmd.Process.Pid)
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond)
}

const ticksPerSecond = 100 // of Linux's accounting, on every architecture that Go runs on

// processTicks parses one process's line, if the process is the server or its child.
func processTicks(line string, server int) int {
	// The fields after the name, which may contain any character.
	fields := strings.Fields(line[strings.LastIndex(line, ")")+1:])
	if len(fields) < 15 {
		return 0
	}
	sum := func(from, to int) (n int) {
		for _, field := range fields[from:to] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0
			}
			n += ticks
		}
		return n
	}
	switch {
	case strings.HasPrefix(line, strconv.Itoa(server)+" "):
		return sum(11, 15) // user and system time, its own and of its ended children
	case fields[1] == strconv.Itoa(server):
		return sum(11, 13)
	}
	return 0
}
