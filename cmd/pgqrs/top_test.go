package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/pgqrs/pgqrs-go"
)

// newScreen returns a screen on an empty database, with the given queues.
func newScreen(t *testing.T, width, height int, queues ...pgqrs.QueueDepth) *screen {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	top := &screen{ctx: t.Context(), store: s.store, interval: time.Second, width: width, height: height}
	top.Update(glance{snapshot: snapshot{at: time.Unix(1000, 0), queues: queues}})
	return top
}

var threeQueues = []pgqrs.QueueDepth{
	{Name: "emails", Ready: 5, Dead: 2, ArchivedLastMinute: 100, OldestReady: time.Minute},
	{Name: "orders", Ready: 9, Leased: 1},
	{Name: "reports", Ready: 7, OldestReady: time.Hour, PausedAt: time.Unix(1, 0)},
}

// press presses keys, and lets the screen run the commands that it returns.
func press(s *screen, keys ...string) {
	codes := map[string]rune{"up": tea.KeyUp, "down": tea.KeyDown, "tab": tea.KeyTab, "space": tea.KeySpace}
	for _, key := range keys {
		msg := tea.KeyPressMsg{Code: codes[key]}
		if msg.Code == 0 {
			msg = tea.KeyPressMsg{Code: rune(key[0]), Text: key}
		}
		if _, cmd := s.Update(msg); cmd != nil {
			s.Update(cmd())
		}
	}
}

// names returns the queues in their order on the screen.
func names(s *screen) string {
	var list []string
	for _, line := range s.lines() {
		for _, q := range threeQueues {
			if strings.HasPrefix(ansi.Strip(line), q.Name+" ") {
				list = append(list, q.Name)
			}
		}
	}
	return strings.Join(list, " ")
}

func TestTopSorts(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	for _, want := range []struct{ key, names string }{
		{"r", "reports orders emails"}, {"s", "orders reports emails"}, {"s", "reports emails orders"}, {"r", "orders emails reports"}, {"s", "orders emails reports"}, {"s", "emails orders reports"},
	} {
		press(s, want.key)
		if got := names(s); got != want.names {
			t.Errorf("after %s by %s the queues are %s, want %s", want.key, orders[s.order].title, got, want.names)
		}
	}
}

func TestTopSelectsAQueueAndKeepsIt(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	press(s, "down", "down", "down", "up")
	if s.selected != "orders" {
		t.Fatalf("the selected queue is %s, want orders", s.selected)
	}
	press(s, "s")
	for _, line := range s.lines() {
		if strings.HasPrefix(line, highlight) && !strings.HasPrefix(ansi.Strip(line), "orders") {
			t.Errorf("the highlighted line is %q", line)
		}
	}
	s.Update(glance{snapshot: snapshot{at: time.Unix(1001, 0), queues: threeQueues[2:]}})
	press(s, "up")
	if s.selected != "reports" {
		t.Errorf("the selected queue is %s though only reports is left", s.selected)
	}
}

// The screen has room for a few queues, so the others cost nothing to draw.
func TestTopDrawsTheQueuesAroundTheSelectedOne(t *testing.T) {
	allocs := map[int]float64{}
	for _, n := range []int{1_000, 20_000} {
		var queues []pgqrs.QueueDepth
		for i := range n {
			queues = append(queues, pgqrs.QueueDepth{Name: fmt.Sprintf("queue %05d", i), Ready: 1})
		}
		s := newScreen(t, 100, 24, queues...)
		for _, i := range []int{0, 1, n / 2, n - 2, n - 1} {
			s.selected = queues[i].Name
			marked := ""
			for _, line := range s.lines() {
				if strings.HasPrefix(line, highlight) {
					marked = ansi.Strip(line)
				}
			}
			if !strings.HasPrefix(marked, queues[i].Name+" ") {
				t.Errorf("of %d queues %q is highlighted, want %q", n, marked, queues[i].Name)
			}
		}
		allocs[n] = testing.AllocsPerRun(3, func() { s.lines() })
	}
	if allocs[20_000] > 2*allocs[1_000] {
		t.Errorf("a screen takes %.0f allocations with 1,000 queues and %.0f with 20,000", allocs[1_000], allocs[20_000])
	}
}

func TestTopShowsEachPanel(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	for range panels {
		if text := strings.Join(s.lines(), "\n"); !strings.Contains(text, panels[s.panel].title+" of emails") {
			t.Errorf("panel %d shows\n%s", s.panel, text)
		}
		press(s, "tab")
	}
	if s.panel != 0 {
		t.Errorf("after the last panel comes panel %d", s.panel)
	}
}

func TestTopShowsGrowth(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	look := func(at int64, q pgqrs.QueueDepth) string {
		s.Update(glance{snapshot: snapshot{at: time.Unix(at, 0), queues: []pgqrs.QueueDepth{q}}})
		return strings.Join(s.lines(), "\n")
	}
	q := threeQueues[0]
	q.Ready, q.Scheduled, q.Leased = 25, 3, 7
	if text := look(1002, q); s.paces[0].growth != 15 || !strings.Contains(text, " 15.0 ") {
		t.Errorf("30 more in 2 s are a growth of %v:\n%s", s.paces[0].growth, text)
	}
	q.Ready = 15
	if look(1003, q); s.paces[0].growth != -10 {
		t.Errorf("10 less in 1 s are a growth of %v", s.paces[0].growth)
	}
	q.Scheduled = pgqrs.DepthLimit
	if text := look(1004, q); s.paces[0].known || !strings.Contains(text, "100000+") {
		t.Errorf("of a count that was not finished it shows growth %v:\n%s", s.paces[0].growth, text)
	}
}

func TestTopFreezes(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	press(s, "space")
	s.Update(glance{snapshot: snapshot{at: time.Unix(1001, 0)}})
	if names(s) != "emails orders reports" || !strings.Contains(s.lines()[0], "FROZEN") {
		t.Errorf("a frozen screen shows\n%s", strings.Join(s.lines(), "\n"))
	}
	press(s, "space")
	s.Update(glance{snapshot: snapshot{at: time.Unix(1001, 0)}})
	if names(s) != "" {
		t.Errorf("a screen that goes on shows\n%s", strings.Join(s.lines(), "\n"))
	}
}

func TestTopKeepsTheLastPictureInTheFaceOfAnError(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	s.Update(glance{err: errors.New("connection \x1b[2Jrefused")})
	if text := strings.Join(s.lines(), "\n"); names(s) != "emails orders reports" || !strings.Contains(text, `error: connection \x1b[2Jrefused`) {
		t.Errorf("it shows\n%s", text)
	}
}

func TestTopLeavesOutAnAnswerThatComesTooLate(t *testing.T) {
	s := newScreen(t, 100, 24, threeQueues...)
	press(s, "down")
	s.Update(detail{queue: "emails", messages: []pgqrs.MessageInfo{{ID: 4711}}})
	if text := strings.Join(s.lines(), "\n"); strings.Contains(text, "4711") {
		t.Errorf("it shows the dead letters of another queue:\n%s", text)
	}
	if s.detail.queue != "orders" {
		t.Errorf("the answer for %q took the place of that for orders", s.detail.queue)
	}
}

func TestTopFitsTheScreen(t *testing.T) {
	queues := make([]pgqrs.QueueDepth, 100)
	for i := range queues {
		queues[i] = pgqrs.QueueDepth{Name: fmt.Sprintf("queue-%02d-%s", i, strings.Repeat("长", i)), Ready: 1 << 40}
	}
	for _, size := range []struct{ width, height int }{{80, 24}, {40, 10}, {200, 60}, {20, 4}, {1, 1}} {
		s := newScreen(t, size.width, size.height, queues...)
		for range 120 {
			press(s, "down")
			lines := s.lines()
			if len(lines) > size.height {
				t.Fatalf("%d lines on a screen of %d", len(lines), size.height)
			}
			for _, line := range lines {
				if ansi.StringWidth(line) > size.width {
					t.Fatalf("a line is %d wide on a screen of %d: %q", ansi.StringWidth(line), size.width, line)
				}
			}
		}
		if s.selected != queues[99].Name {
			t.Errorf("the last queue is %s", s.selected)
		}
	}
}

func TestTopLooksAtTheDatabase(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("emails", `"<script>"`)
		s.kill("emails", "no such address")
		top := &screen{ctx: s.Context(), store: s.store, interval: time.Second, width: 100, height: 24}
		top.Update(top.Init()())
		top.Update(top.lookCloser()())
		if text := strings.Join(top.lines(), "\n"); !strings.Contains(text, "dead letters of emails") || !strings.Contains(text, "no such address") {
			s.Errorf("it shows\n%s", text)
		}
		press(top, "tab")
		if text := strings.Join(top.lines(), "\n"); !strings.Contains(text, "workers of emails") || !strings.Contains(text, "HEARTBEAT") {
			s.Errorf("it shows\n%s", text)
		}
	})
}

func TestTopNeedsATerminal(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	if o := s.do("", "top"); o.code != exitUsage {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
}
