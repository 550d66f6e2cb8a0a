package pgqrs

import (
	"context"
	"database/sql/driver"
	"testing"
	"time"
)

// A hotPath is work that is done for each of many messages.
type hotPath struct {
	name     string
	messages int // of one call
	// allocs is measured for each message, with the allocations of database/sql and the fake
	// database.
	allocs  float64
	prepare func(*Store) func() error // of one call
}

const batchSize = 100

type email struct{ To, Subject string }

var hotPaths = []hotPath{
	{"Enqueue", 1, 27, func(s *Store) func() error {
		q := NewQueue[email](s, "emails")
		return func() error {
			_, err := q.Enqueue(context.Background(), email{"ada", "hello"})
			return err
		}
	}},
	{"EnqueueBatch", batchSize, 2.5, func(s *Store) func() error {
		q := NewQueue[email](s, "emails")
		list := make([]email, batchSize)
		return func() error {
			_, err := q.EnqueueBatch(context.Background(), list)
			return err
		}
	}},
	{"Dequeue", batchSize, 9.5, func(s *Store) func() error {
		q := NewQueue[email](s, "emails")
		return func() error {
			_, err := q.Dequeue(context.Background(), batchSize, 30*time.Second)
			return err
		}
	}},
	{"Ack", batchSize, 1.5, func(s *Store) func() error {
		q := NewQueue[email](s, "emails")
		ms, err := q.Dequeue(context.Background(), batchSize, 30*time.Second)
		if err != nil {
			return func() error { return err }
		}
		return func() error { return q.Ack(context.Background(), ms...) }
	}},
}

// hotDatabase answers a call with one row for each of its messages.
func hotDatabase(t testing.TB) *Store {
	now := time.Now()
	var ids, deliveries [][]driver.Value
	for i := range int64(batchSize) {
		ids = append(ids, []driver.Value{i + 1})
		deliveries = append(deliveries, []driver.Value{i + 1, []byte(`{"To":"ada","Subject":"hello"}`), int64(0), int64(1), int64(9), nil, nil, nil, now, now, now.Add(time.Minute)})
	}
	keyed := make([][]driver.Value, batchSize)
	for i := range keyed {
		keyed[i] = []driver.Value{int64(i + 1), nil}
	}
	var f *fake
	f, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
		f.log() // forgets all calls
		switch c.tag() {
		case "message.claim":
			return deliveries, nil
		case "message.mixed_enqueue":
			return keyed, nil
		case "message.batch_enqueue", "message.ack":
			return ids, nil
		}
		return ids[:1], nil
	})
	return s
}

func TestAllocationsOfHotPathsHaveNotDoubled(t *testing.T) {
	for _, p := range hotPaths {
		t.Run(p.name, func(t *testing.T) {
			do := p.prepare(hotDatabase(t))
			var failed error
			allocs := testing.AllocsPerRun(100, func() {
				if err := do(); err != nil {
					failed = err
				}
			}) / float64(p.messages)
			if failed != nil {
				t.Fatal(failed)
			}
			t.Logf("%.1f allocations a message", allocs)
			if allocs > 2*p.allocs {
				t.Errorf("%.1f allocations a message; it was %.1f once", allocs, p.allocs)
			}
		})
	}
}

func BenchmarkHotPaths(b *testing.B) {
	for _, p := range hotPaths {
		b.Run(p.name, func(b *testing.B) {
			do := p.prepare(hotDatabase(b))
			b.ReportAllocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*p.messages), "ns/message")
		})
	}
}
