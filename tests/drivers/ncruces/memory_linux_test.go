package ncruces_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A queue of large messages is listed and handled within the memory that the driver gives SQLite.
// The driver panics if SQLite needs more.
func TestLargeMessagesNeitherPanicNorLeaveFilesOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.db")
	s, err := pgqrs.Open(t.Context(), "sqlite:"+path)
	must(t, err)
	must(t, s.Install(t.Context()))
	q := pgqrs.NewQueue[string](s, "large")
	text := strings.Repeat("x", 1<<20-2)
	var last int64
	for range 200 {
		last, err = q.Enqueue(t.Context(), text, pgqrs.Group("a"))
		must(t, err)
	}
	list, err := s.Messages(t.Context(), pgqrs.MessageFilter{Queue: "large", State: pgqrs.Blocked, Limit: 1000})
	must(t, err)
	if len(list) != 199 {
		t.Errorf("%d messages are listed; want 199", len(list))
	}
	ahead, err := s.Ahead(t.Context(), last, 10)
	must(t, err)
	if len(ahead) != 1 {
		t.Errorf("%d messages are ahead of the last; want 1", len(ahead))
	}
	var ids []int64
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	_, err = s.Messages(t.Context(), pgqrs.MessageFilter{IDs: ids})
	must(t, err)
	for left := len(list); left > 150; {
		ms, err := q.Dequeue(t.Context(), 200, time.Minute)
		must(t, err)
		left -= len(ms)
		must(t, q.Ack(t.Context(), ms...))
	}
	must(t, s.Close())
	if open := opened(t, path); len(open) > 0 {
		t.Errorf("these are open after Close: %v", open)
	}
}

// opened returns the descriptors of this process that are files of a path.
func opened(t *testing.T, path string) (list []string) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, path) {
			list = append(list, to)
		}
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
