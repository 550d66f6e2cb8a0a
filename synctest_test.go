//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
)

// A busyOne is a database whose statements take a while. It counts how many are in progress.
type busyOne struct {
	takes time.Duration

	mu   sync.Mutex
	now  int
	most int
}

func (b *busyOne) answer(call) ([][]driver.Value, error) {
	b.mu.Lock()
	b.now++
	b.most = max(b.most, b.now)
	b.mu.Unlock()
	time.Sleep(b.takes)
	b.mu.Lock()
	b.now--
	b.mu.Unlock()
	return row(int64(1)), nil
}

// enqueueAtOnce enqueues to eight queues, which do not share statements. It returns how many
// statements were in progress at once.
func enqueueAtOnce(t *testing.T, d Dialect, takes time.Duration) int {
	b := &busyOne{takes: takes}
	_, store := newFake(t, Config{}, d, b.answer)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		all.Go(func() {
			if _, err := NewQueue[int](store, name).Enqueue(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return b.most
}

func TestWritesQueueForADatabaseThatDoesOneAtATime(t *testing.T) {
	for d, want := range map[Dialect]int{SQLite: 1, Turso: 1, Postgres: 8} {
		synctest.Test(t, func(t *testing.T) {
			if most := enqueueAtOnce(t, d, 10*time.Millisecond); most != want {
				t.Errorf("%s: %d writes at a time, want %d", d, most, want)
			}
		})
	}
}

func TestAWriteThatHangsHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if most := enqueueAtOnce(t, SQLite, time.Minute); most != 8 {
			t.Errorf("%d writes at a time, want 8", most)
		}
		if took, want := time.Since(began), time.Minute+writerSlotWait; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
	})
}

func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := make(writerSlot, 1)
		var order []int
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			all.Go(func() {
				mine := t.Context()
				if i == 3 {
					mine = ctx
				}
				err := line.do(mine, func() error {
					time.Sleep(100 * time.Millisecond)
					order = append(order, i)
					return nil
				})
				if (i == 3) != errors.Is(err, context.Canceled) {
					t.Errorf("call %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		cancel() // the fourth caller has cancelled
		all.Wait()
		if want := []int{0, 1, 2, 4}; !slices.Equal(order, want) {
			t.Errorf("they came in order %v, want %v", order, want)
		}
	})
}

func TestConflictsAreGivenUpAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{Concurrent: true}, Turso, failing("commit", slices.Repeat([]error{errors.New("Write-write conflict")}, 100)...))
		begun := time.Now()
		_, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1)
		if want := "pgqrs: enqueue on queue \"q\": tried 25 times: Write-write conflict"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if n := count(f.log(), "query"); n != 25 {
			t.Errorf("it was tried %d times, want 25", n)
		}
		if took := time.Since(begun); took < 2*time.Second || took > 8*time.Second {
			t.Errorf("it took %v, want some 5 s", took)
		}
	})
}

// Concurrent claims of one worker under Config.Concurrent would only conflict with each other.
func TestClaimsOfAConsumerTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f, s := newFake(t, Config{Concurrent: true}, Turso, func(c call) ([][]driver.Value, error) {
			if c.tag() == "message.claim" {
				<-gate
				return nil, errBroken
			}
			return row(int64(1)), nil
		})
		c := &consumer{queue: "q", claimSlot: make(chan struct{}, 1), row: registration{id: 1}, asOf: time.Now()}
		ended := make(chan error, 3)
		claim := func(ctx context.Context) {
			_, err := c.claim(ctx, s, 1, time.Minute)
			ended <- err
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go claim(t.Context())
		synctest.Wait()
		go claim(t.Context())
		go claim(short)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that waited too long: %v", err)
		}
		if n := count(f.log(), "query"); n != 1 {
			t.Errorf("%d claims are under way, want 1", n)
		}
		close(gate)
		for range 2 {
			if err := <-ended; !errors.Is(err, errBroken) {
				t.Error(err)
			}
		}
		if n := count(f.log(), "query"); n != 1 {
			t.Errorf("%d claims followed, want 1", n)
		}
	})
}

// crowd is the number of concurrent callers.
const crowd = 10

// together makes a crowd of calls while a fake holds back its answers, and returns the statements
// that were sent.
func together(t *testing.T, answer func(call) [][]driver.Value, one func(ctx context.Context, s *Store, n int) error) string {
	var sent string
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
			<-gate
			return answer(c), nil
		})
		done := make(chan error, crowd)
		for n := range crowd {
			go func() { done <- one(t.Context(), s, n) }()
		}
		synctest.Wait()
		close(gate)
		for range crowd {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		sent = fmt.Sprint(f.calls)
	})
	return sent
}

func TestEnqueuesShareAStatement(t *testing.T) {
	id := int64(0)
	var seen sync.Map
	sent := together(t, func(c call) (rows [][]driver.Value) {
		if c.tag() == "message.enqueue" {
			id++
			return row(id)
		}
		for range crowd - 1 {
			id++
			rows = append(rows, []driver.Value{id, nil})
		}
		return rows
	}, func(ctx context.Context, s *Store, n int) error {
		id, err := NewQueue[int](s, "q").Enqueue(ctx, n)
		if _, twice := seen.LoadOrStore(id, true); twice {
			t.Errorf("two calls returned the id %d", id)
		}
		return err
	})
	if sent != "[query message.enqueue query message.mixed_enqueue]" {
		t.Errorf("sent %s", sent)
	}
}

func TestEnqueuesThatMayHaveToWaitShareNothing(t *testing.T) {
	long := strings.Repeat("x", maxShared)
	for what, one := range map[string]func(ctx context.Context, s *Store, n int) error{
		"a key": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[int](s, "q").Enqueue(ctx, n, Key(fmt.Sprint(n)))
			return err
		},
		"a long payload": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[string](s, "q").Enqueue(ctx, long)
			return err
		},
		"another's queue": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[int](s, fmt.Sprint(n)).Enqueue(ctx, n)
			return err
		},
	} {
		sent := together(t, func(call) [][]driver.Value { return row(int64(1)) }, one)
		if strings.Contains(sent, "batch") {
			t.Errorf("with %s: sent %s", what, sent)
		}
	}
}

func TestAcksShareAStatement(t *testing.T) {
	sent := together(t, func(c call) (rows [][]driver.Value) {
		for n := range int64(crowd) {
			if strings.Contains(c.args[0].Value.(string), fmt.Sprintf("[%d,7,1]", n)) {
				rows = append(rows, row(n)...)
			}
		}
		return rows
	}, func(ctx context.Context, s *Store, n int) error {
		m := &Message[int]{MessageInfo: MessageInfo{ID: int64(n), WorkerID: 7, Claim: 1}}
		return NewQueue[int](s, "q").Ack(ctx, m)
	})
	if sent != "[query message.ack query message.ack]" {
		t.Errorf("sent %s", sent)
	}
}

func TestAcksOfOneMessageShareNothing(t *testing.T) {
	var lost atomic.Int32
	sent := together(t, func(c call) [][]driver.Value {
		if strings.Contains(c.args[0].Value.(string), "[1,7,0]") { // of the first holder
			return nil
		}
		return row(int64(1))
	}, func(ctx context.Context, s *Store, n int) error {
		m := &Message[int]{MessageInfo: MessageInfo{ID: 1, WorkerID: 7, Claim: int64(n % 2)}}
		err := NewQueue[int](s, "q").Ack(ctx, m)
		if errors.Is(err, ErrLeaseLost) {
			lost.Add(1)
			return nil
		}
		return err
	})
	if n := strings.Count(sent, "message.ack"); n != crowd || lost.Load() != crowd/2 {
		t.Errorf("%d statements, %d calls of %d lost their lease", n, lost.Load(), crowd/2)
	}
}

func TestStepsShareAStatement(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) {
		return [][]driver.Value{{int64(2), "a", "PAUSED"}, {int64(1), "a", "RUNNING"}}, nil
	})
	m := &MessageInfo{ID: 5, WorkerID: 7, Claim: 1}
	// The third lease is lost.
	list := []stepWrite{{1, m, "a", stepValues{}}, {2, m, "a", stepValues{}}, {1, m, "b", stepValues{}}}
	states, err := s.saveSteps(t.Context(), list)
	if err != nil || !slices.Equal(states, []RunState{Running, Paused, ""}) {
		t.Errorf("states %q, %v", states, err)
	}
	if _, err := s.saveSteps(t.Context(), append(list, list[0])); !errors.Is(err, coalesce.ErrContended) {
		t.Errorf("one step twice: %v", err)
	}
	if got := fmt.Sprint(f.calls); got != "[query step.batch_save]" {
		t.Errorf("sent %s", got)
	}
}

// A schedule without a next instant may belong to another version. The worker looks at it once a
// minute.
func TestStandingAsideOnAnEndedScheduleIsNoReasonToHurryOrToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := new(idleDatabase)
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
			if c.tag() == "schedule.find" {
				pass(10 * time.Millisecond)
				return row("s", time.Now(), int64(1), "another", "UTC", int64(1), nil, nil, nil), nil
			}
			return idle.answer(c)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		w := &Worker{Schedules: []Schedule{{Name: "s", Rule: Every(time.Hour), Target: NewQueue[int](s, "q").Target(1)}}}
		go func() { done <- w.Run(ctx) }()
		pass(time.Minute / 2)
		f.log()
		pass(10 * time.Minute)
		looks := 0
		for _, c := range f.log() {
			if c.tag() == "schedule.find" {
				looks++
			}
		}
		if looks < 9 || looks > 11 {
			t.Errorf("it has looked %d times in ten minutes", looks)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// A clockwork answers like a database with schedules. An enqueue to a stuck queue waits until its
// ctx ends.
type clockwork struct {
	idleDatabase
	mu            sync.Mutex
	next          map[string]time.Time
	stuck         map[string]bool
	ran           map[string]int
	waiting, most int // waiting enqueues, now and at most
}

func (d *clockwork) answer(c call) ([][]driver.Value, error) {
	switch c.tag() {
	case "schedule.find":
		var rows [][]driver.Value
		var names [][]string
		if err := json.Unmarshal([]byte(c.args[0].Value.(string)), &names); err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, name := range names {
			n, err := strconv.ParseInt(name[0][1:], 10, 64)
			if err != nil {
				return nil, err
			}
			rows = append(rows, []driver.Value{name[0], time.Now(), n, "every 1s", "UTC", int64(1), d.next[name[0]], nil, nil})
		}
		return rows, nil
	case "schedule.advance":
		d.mu.Lock()
		defer d.mu.Unlock()
		d.next[fmt.Sprint("s", c.args[0].Value)] = time.UnixMicro(c.args[2].Value.(int64))
		return row(int64(1)), nil
	case "message.enqueue":
		queue := c.args[0].Value.(string)
		d.mu.Lock()
		stuck := d.stuck[queue]
		d.mu.Unlock()
		if stuck {
			d.wait(1)
			<-c.ctx.Done()
			d.wait(-1)
			return nil, c.ctx.Err()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ran[queue]++
		return row(int64(1)), nil
	case "schedule.record":
		return row(time.Now()), nil
	}
	return d.idleDatabase.answer(c)
}

func (d *clockwork) wait(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += n
	d.most = max(d.most, d.waiting)
}

// tried returns the maximum number of waiting enqueues since its last call.
func (d *clockwork) tried() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.most
	d.most = d.waiting
	return n
}

// runs returns how often the schedule of a queue has run since its last call.
func (d *clockwork) runs(queue string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.ran[queue]
	d.ran[queue] = 0
	return n
}

// runClockwork runs a worker with schedules that are due each second: s1 on the queue s1, and so
// on. Some of the queues are stuck.
func runClockwork(t *testing.T, schedules, stuck int, check func(t *testing.T, d *clockwork)) {
	synctest.Test(t, func(t *testing.T) {
		d := &clockwork{next: map[string]time.Time{}, stuck: map[string]bool{}, ran: map[string]int{}}
		_, s := newFake(t, Config{NoPrepare: true}, Postgres, d.answer)
		// A sql.Result locks its connection, which by then may be waiting for the fake clock.
		s.DB().SetMaxIdleConns(-1)
		w := &Worker{}
		for n := range schedules {
			name := fmt.Sprint("s", n+1)
			d.next[name] = time.Now()
			d.stuck[name] = n < stuck
			w.Schedules = append(w.Schedules, Schedule{Name: name, Rule: Every(time.Second), Target: NewQueue[int](s, name).Target(1)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		check(t, d)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// Schedules that a foreign lock blocks do not delay the other schedules of their worker. They are
// tried again a few at a time.
func TestASchedulesWaitIsNotThatOfOthers(t *testing.T) {
	for _, stuck := range []int{1, maxRunningSchedules + 4} {
		runClockwork(t, stuck+3, stuck, func(t *testing.T, d *clockwork) {
			// By then the worker knows which schedules are slow.
			pass(statementTimeout + time.Duration(stuck)*slowSchedule + time.Second)
			others := []string{fmt.Sprint("s", stuck+1), fmt.Sprint("s", stuck+3)}
			for _, name := range others {
				d.runs(name)
			}
			d.tried()
			pass(time.Minute)
			for _, name := range others {
				if n := d.runs(name); n < 58 || n > 61 {
					t.Errorf("beside %d schedules that are stuck, %s ran %d times in a minute", stuck, name, n)
				}
			}
			if n := d.tried(); n == 0 || n > maxRunningSchedules {
				t.Errorf("%d of %d schedules that are stuck were tried at a time", n, stuck)
			}
		})
	}
}

// If a schedule's statement gets no answer, it is given up, and the schedule is tried again.
func TestAScheduleThatIsStuckIsTriedAgain(t *testing.T) {
	runClockwork(t, 1, 1, func(t *testing.T, d *clockwork) {
		pass(time.Second)
		d.mu.Lock()
		d.stuck["s1"] = false
		d.mu.Unlock()
		pass(statementTimeout + 2*failedCheckWait)
		d.runs("s1")
		pass(10 * time.Second)
		if n := d.runs("s1"); n < 9 {
			t.Errorf("it ran %d times in ten seconds", n)
		}
	})
}

// Past instants are skipped without a call for each, however long ago the first one was.
func TestInstantsThatArePast(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	const fine = 1500500 * time.Microsecond
	for _, c := range []struct {
		name    string
		every   time.Duration
		catchUp int
		first   time.Time
		want    int
	}{
		{"the latest one", time.Hour, 0, now.AddDate(-1, 0, 0), 1},
		{"as many as are to be made up for", time.Hour, 3, now.AddDate(-1, 0, 0), 3},
		{"fewer than that", time.Hour, 1000, now.Add(-5 * time.Hour), 6},
		{"of years in three centuries, more than a Duration holds", 365 * 24 * time.Hour, 1000, Every(365 * 24 * time.Hour).Next(now.AddDate(-3, 0, 0)), 3},
		{"those that are no whole milliseconds", fine, 3, Every(2 * fine).Next(now.AddDate(-1, 0, 0)), 3},
		{"and one more", fine, 4, Every(2 * fine).Next(now.AddDate(-1, 0, 0)), 4},
		{"one that is missed is none", 24 * time.Hour, -1, now.AddDate(-1, 0, 0).Truncate(24 * time.Hour), 0},
	} {
		s := Schedule{Rule: Every(c.every), CatchUp: c.catchUp}
		due, next, err := s.due(t.Context(), c.first, now)
		if err != nil || len(due) != c.want {
			t.Errorf("%s: %d instants and the error %v; want %d", c.name, len(due), err, c.want)
		}
		for i, at := range append(due, next) {
			if at.Truncate(time.Millisecond) != at || i == len(due) && !at.After(now) || i < len(due) && at.After(now) {
				t.Errorf("%s: the instant %d is %v", c.name, i, at)
			}
		}
	}
}
