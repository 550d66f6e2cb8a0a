package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/dashboard"
)

// A served is a dashboard that pgqrs serve serves until the test ends.
type served struct {
	URL    string
	Socket string
	notes  *notes
	end    func() int
}

// notes keep the standard error of a command.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// serves starts pgqrs serve.
func (s *shell) serves(args ...string) served {
	s.Helper()
	ctx, interrupt := context.WithCancel(context.WithoutCancel(s.Context()))
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	at := served{notes: &notes{}, end: sync.OnceValue(func() int { interrupt(); return <-ended })}
	go func() {
		a := &app{in: strings.NewReader(""), out: writer, err: at.notes}
		ended <- a.run(ctx, append([]string{"pgqrs", "-dsn", s.dsn, "-json", "serve"}, args...))
		writer.Close()
	}()
	s.Cleanup(func() { at.end() })
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		s.Fatalf("serve %v: %s", args, at.notes)
	}
	s.check(json.Unmarshal(line, &at))
	return at
}

// refuses runs pgqrs serve, and expects it to end by itself.
func (s *shell) refuses(args ...string) outcome {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	var out, err strings.Builder
	a := &app{in: strings.NewReader(""), out: &out, err: &err}
	code := a.run(ctx, append([]string{"pgqrs", "-dsn", s.dsn, "serve"}, args...))
	return outcome{out.String(), err.String(), code}
}

// visitor returns a client that keeps cookies.
func visitor(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
}

// answer sends a request and checks the status of the answer.
func (s *shell) answer(client *http.Client, r *http.Request, status int) string {
	s.Helper()
	response, err := client.Do(r)
	s.check(err)
	page, err := io.ReadAll(response.Body)
	s.check(err)
	s.check(response.Body.Close())
	if response.StatusCode != status {
		s.Errorf("%s %s of host %q answers %s, want %d:\n%.300s", r.Method, r.URL, r.Host, response.Status, status, page)
	}
	return string(page)
}

func (s *shell) request(method, address string, form url.Values) *http.Request {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, address, strings.NewReader(form.Encode()))
	s.check(err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r.Body, r.ContentLength = nil, 0
	}
	return r
}

func (s *shell) get(client *http.Client, address string, status int) string {
	s.Helper()
	return s.answer(client, s.request(http.MethodGet, address, nil), status)
}

func TestServe(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("emails", `"<script>alert(1)</script>"`)
		at := s.serves("-addr", "localhost:0")
		if page := s.get(visitor(s.T), at.URL, http.StatusOK); !strings.Contains(page, "emails") {
			s.Errorf("the dashboard shows:\n%s", page)
		}
		if code := at.end(); code != exitDone {
			s.Errorf("serve exits with %d", code)
		}
	})
}

func TestServeAsksForAToken(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	s.enqueue("secret-queue", `1`)
	at := s.serves("-addr", "localhost:0", "-actions")
	u, err := url.Parse(at.URL)
	s.check(err)
	token := u.Query().Get("token")
	if len(token) < 20 {
		t.Fatalf("the address is %s", at.URL)
	}
	bare := "http://" + u.Host + "/"
	if page := s.get(visitor(t), bare, http.StatusUnauthorized); strings.Contains(page, "secret") {
		t.Errorf("without a token the dashboard shows %s", page)
	}
	pause := url.Values{"do": {"pause"}, "name": {"secret-queue"}}
	s.answer(visitor(t), s.request(http.MethodPost, bare+"action", pause), http.StatusUnauthorized)
	curl := s.request(http.MethodPost, bare+"action", pause)
	curl.Header.Set("Authorization", "Bearer "+token)
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.answer(stay, curl, http.StatusSeeOther)
	list, err := s.store.Depths(t.Context(), "secret-queue")
	s.check(err)
	if list[0].PausedAt.IsZero() {
		t.Error("a program with the token does not pause the queue")
	}
	if log := at.notes.String(); strings.Contains(log, token) || !strings.Contains(log, "action=pause") || !strings.Contains(log, "remote=127.0.0.1") {
		t.Errorf("the log is %s", log)
	}
	if again := s.serves("-addr", "localhost:0"); strings.Contains(again.URL, token) {
		t.Error("two dashboards have one token")
	}
}

func TestServeTakesItsTokenFromAFileOrTheEnvironment(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	file := filepath.Join(t.TempDir(), "token")
	s.check(os.WriteFile(file, []byte("from-a-file-0123456789\n"), 0o600))
	for _, c := range []struct{ token, env, file string }{{"from-a-file-0123456789", "", file}, {"from-the-environment", "from-the-environment", ""}, {"from-a-file-0123456789", "from-the-environment", file}} {
		t.Setenv("PGQRS_TOKEN", c.env)
		args := []string{"-addr", "localhost:0"}
		if c.file != "" {
			args = append(args, "-token-file", c.file)
		}
		at := s.serves(args...)
		if strings.Contains(at.URL, "token") || strings.Contains(at.notes.String(), c.token) {
			t.Errorf("serve prints the token: %s %s", at.URL, at.notes)
		}
		s.get(visitor(t), at.URL, http.StatusUnauthorized)
		s.get(visitor(t), at.URL+"/?token="+c.token, http.StatusOK)
	}
}

func TestServeAnswersForItsOwnHostsAlone(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	s.enqueue("secret-queue", `1`)
	at := s.serves("-addr", "localhost:0", "-no-token", "-host", "ops.example.com,192.0.2.7", "-host", "other.example.com", "-actions")
	if strings.Contains(at.URL, "token") {
		t.Errorf("the address is %s", at.URL)
	}
	port := at.URL[strings.LastIndexByte(at.URL, ':'):]
	for host, status := range map[string]int{
		"attacker.example:8181": 421, "attacker.example": 421, "localhost": 200, "LOCALHOST" + port: 200, "127.0.0.1" + port: 200, "ops.example.com": 200, "Ops.Example.com.:443": 200,
		"other.example.com": 200, "192.0.2.7": 200, "192.0.2.8": 421, "0.0.0.0" + port: 421,
	} {
		r := s.request(http.MethodGet, at.URL, nil)
		r.Host = host
		r.Header.Set("X-Forwarded-Host", "localhost")
		if page := s.answer(visitor(t), r, status); strings.Contains(page, "secret") != (status == 200) {
			t.Errorf("host %q sees %s", host, page)
		}
	}
	r := s.request(http.MethodPost, at.URL+"/action", url.Values{"do": {"pause"}, "name": {"secret-queue"}})
	r.Host = "attacker.example:8181"
	r.Header.Set("Origin", "http://attacker.example:8181")
	s.answer(visitor(t), r, http.StatusMisdirectedRequest)
	r = s.request(http.MethodPost, at.URL+"/action", url.Values{"do": {"pause"}, "name": {"secret-queue"}})
	s.answer(visitor(t), r, http.StatusForbidden) // has neither Origin nor Sec-Fetch-Site
	list, err := s.store.Depths(t.Context(), "secret-queue")
	s.check(err)
	if !list[0].PausedAt.IsZero() {
		t.Error("the queue is paused")
	}
}

func TestServeRefusesWhatIsNotSafe(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	dir := t.TempDir()
	write := func(name, text string) string {
		s.check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		return filepath.Join(dir, name)
	}
	for _, args := range [][]string{
		{"-addr", "0.0.0.0:0"}, {"-addr", ":0"}, {"-addr", "[::]:0"}, {"-addr", "[::ffff:0.0.0.0]:0"}, {"-addr", "0.0.0.0:0", "-actions"}, {"-addr", "192.0.2.7:8190"},
		{"-addr", "0.0.0.0:0", "-no-token"}, {"-addr", "0.0.0.0:0", "-public", "-no-token"}, {"-addr", ":0", "-no-token", "-public"},
		{"-addr", "localhost"}, {"-addr", "localhost:x"}, {"-addr", "unix:"}, {"-addr", "unix:@abstract"}, {"-addr", "unix:" + dir + "/s", "-public"},
		{"-addr", "localhost:0", "-origin", "no origin"}, {"-addr", "localhost:0", "-host", "https://ops.example.com"}, {"-addr", "localhost:0", "-host", "*"},
		{"-addr", "localhost:0", "-token-file", write("short", "short\n")}, {"-addr", "localhost:0", "-token-file", write("empty", "")}, {"-addr", "localhost:0", "-token-file", write("two", "line-of-16-characters\nanother")},
		{"-addr", "localhost:0", "-token-file", write("great", strings.Repeat("x", 5000))}, {"-addr", "localhost:0", "-no-token", "-token-file", write("good", "0123456789abcdef")},
	} {
		if o := s.refuses(args...); o.code != exitUsage || o.out != "" {
			t.Errorf("serve %v exits with %d: %s%s", args, o.code, o.out, o.err)
		}
	}
	if o := s.refuses("-addr", "0.0.0.0:0"); !strings.Contains(o.err, "-public") {
		t.Errorf("a public address is refused without a word of -public: %s", o.err)
	}
	if o := s.refuses("-addr", "localhost:0", "-token-file", filepath.Join(dir, "none")); o.code != exitFailed {
		t.Errorf("a token file that is not there: exit code %d", o.code)
	}
}

func TestServeOnAPublicAddressAsksForAToken(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	for addr, host := range map[string]string{"0.0.0.0:0": "localhost", ":0": "ops.example.com"} {
		args := []string{"-addr", addr, "-public"}
		if host != "localhost" {
			args = append(args, "-host", host)
		}
		at := s.serves(args...)
		u, err := url.Parse(at.URL)
		s.check(err)
		if u.Hostname() != host || len(u.Query().Get("token")) < 20 {
			t.Errorf("%v: the address is %s", args, at.URL)
		}
		bare := "http://127.0.0.1:" + u.Port() + "/"
		s.get(visitor(t), bare, http.StatusUnauthorized)
		s.get(visitor(t), bare+"?"+u.RawQuery, http.StatusOK)
		if !strings.Contains(at.notes.String(), "encrypted") {
			t.Errorf("%v: no word of TLS: %s", args, at.notes)
		}
	}
}

func TestServeOnASocketIsForItsOwnerAlone(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	s.enqueue("emails", `1`)
	dir, err := os.MkdirTemp("", "pgqrs") // t.TempDir may be too long for a socket
	s.check(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	at := s.serves("-addr", "unix:"+path, "-actions")
	if at.Socket != path || at.URL != "" {
		t.Errorf("serve prints %+v", at)
	}
	info, err := os.Lstat(path)
	s.check(err)
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the mode of the socket is %v", info.Mode())
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	if page := s.get(client, "http://localhost/", http.StatusOK); !strings.Contains(page, "emails") {
		t.Errorf("the dashboard shows %s", page)
	}
	s.get(client, "http://attacker.example/", http.StatusMisdirectedRequest)
	if o := s.refuses("-addr", "unix:"+path); o.code != exitFailed || !strings.Contains(o.err, "in use") {
		t.Errorf("a second one exits with %d: %s", o.code, o.err)
	}
	if code := at.end(); code != exitDone {
		t.Errorf("serve exits with %d", code)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestServeReplacesNothingButAnAbandonedSocket(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	dir, err := os.MkdirTemp("", "pgqrs")
	s.check(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	abandoned, err := net.ListenUnix("unix", &net.UnixAddr{Name: in("abandoned")})
	s.check(err)
	abandoned.SetUnlinkOnClose(false)
	s.check(abandoned.Close())
	s.check(os.WriteFile(in("file"), []byte("precious"), 0o644))
	s.check(os.Mkdir(in("dir"), 0o755))
	s.check(os.Symlink(in("file"), in("to-file")))
	s.check(os.Symlink(in("nothing"), in("to-nothing")))
	s.check(os.Symlink(in("abandoned"), in("to-abandoned")))
	for _, name := range []string{"file", "dir", "to-file", "to-nothing", "to-abandoned"} {
		if o := s.refuses("-addr", "unix:"+in(name)); o.code != exitFailed {
			t.Errorf("%s: exit code %d: %s", name, o.code, o.err)
		}
	}
	if text, err := os.ReadFile(in("file")); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if _, err := os.Lstat(in("nothing")); !os.IsNotExist(err) {
		t.Errorf("a link was followed: %v", err)
	}
	if _, err := os.Lstat(in("to-abandoned")); err != nil {
		t.Errorf("a link was removed: %v", err)
	}
	at := s.serves("-addr", "unix:"+in("abandoned"))
	if info, err := os.Lstat(in("abandoned")); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if code := at.end(); code != exitDone {
		t.Errorf("serve exits with %d", code)
	}
}

// The server disconnects each kind of slow client: one that sends no header, one that sends no
// body, and one that reads nothing.
func TestTheServerGivesSlowClientsUp(t *testing.T) {
	server := newServer(http.NotFoundHandler(), nil)
	for name, d := range map[string]time.Duration{"ReadHeader": server.ReadHeaderTimeout, "Read": server.ReadTimeout, "Write": server.WriteTimeout, "Idle": server.IdleTimeout} {
		if d <= 0 || d > 2*time.Minute {
			t.Fatalf("the %sTimeout is %v", name, d)
		}
	}
	if server.MaxHeaderBytes <= 0 || server.MaxHeaderBytes > 64<<10 || !server.DisableGeneralOptionsHandler {
		t.Errorf("headers of %d bytes, OPTIONS * answered by the server: %v", server.MaxHeaderBytes, !server.DisableGeneralOptionsHandler)
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	// The test uses a hundredth of the times.
	server.ReadHeaderTimeout, server.ReadTimeout = server.ReadHeaderTimeout/100, server.ReadTimeout/100
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-ended })
	for _, begin := range []string{"", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"} {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("a client that sends %q is kept", begin)
		}
		conn.Close()
	}
}

// Four bodies of 31 MiB at once leave no bytes in memory and no files.
func TestServeReadsNoGreatBodies(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	spool := t.TempDir()
	t.Setenv("TMPDIR", spool)
	at := s.serves("-addr", "localhost:0", "-no-token", "-actions")
	host := strings.TrimPrefix(at.URL, "http://")
	const size = 31 << 20
	var group sync.WaitGroup
	for _, head := range []string{
		"POST /action HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nSec-Fetch-Site: same-origin",
		"GET / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b",
		"POST /action HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin",
		"POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b",
	} {
		group.Go(func() {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", head, size)
			sent := 0
			for piece := make([]byte, 64<<10); sent < size; sent += len(piece) {
				if _, err := conn.Write(piece); err != nil {
					break
				}
			}
			if sent >= size {
				t.Errorf("%.30s: all of the body was taken", head)
			}
		})
	}
	group.Wait()
	files, err := os.ReadDir(spool)
	s.check(err)
	if len(files) > 0 {
		t.Errorf("bodies were spooled into %v", files)
	}
}

func TestTheSameOptionsAreCheckedAsByTheHandler(t *testing.T) {
	if err := (dashboard.Options{Token: newToken()}).Check(); err != nil {
		t.Error(err)
	}
}
