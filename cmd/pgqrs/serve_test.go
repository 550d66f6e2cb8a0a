package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("emails", `"<script>alert(1)</script>"`)
		ctx, interrupt := context.WithCancel(s.Context())
		defer interrupt()
		reader, writer := io.Pipe()
		ended := make(chan int, 1)
		go func() {
			a := &app{in: strings.NewReader(""), out: writer, err: io.Discard}
			ended <- a.run(ctx, []string{"pgqrs", "-dsn", s.dsn, "-json", "serve", "-addr", "localhost:0"})
			writer.Close()
		}()
		line, err := bufio.NewReader(reader).ReadBytes('\n')
		s.check(err)
		var at struct{ URL string }
		s.check(json.Unmarshal(line, &at))
		response, err := http.Get(at.URL)
		s.check(err)
		page, err := io.ReadAll(response.Body)
		s.check(err)
		s.check(response.Body.Close())
		if response.StatusCode != http.StatusOK || !strings.Contains(string(page), "emails") {
			s.Errorf("the dashboard answers %s:\n%s", response.Status, page)
		}
		interrupt()
		if code := <-ended; code != exitDone {
			s.Errorf("serve exits with %d", code)
		}
	})
}

func TestServeRefusesABadOrigin(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	if o := s.do("", "serve", "-addr", "localhost:0", "-origin", "no origin"); o.code != exitUsage {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
}
