package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// Concurrent calls share statements. Callers notice nothing of it except the speed.
var crowdCases = []testcase{
	{"messages that many goroutines enqueue at once are each stored once, as they were given, with their own ids", "a caller would be handed the id of a stranger's message, or a busy service would lose some", crowdEnqueues},
	{"an enqueue whose ctx ends among many says truly whether its message is stored", "a caller would send again what is stored, or give up what is not", crowdCancels},
	{"of many acks at once those fail whose lease is lost, and no others", "a consumer would redo work because of a neighbour, or think a stranger's work its own", crowdAcks},
	{"steps that many runs record at once are each its own run's", "an order would be shipped with another's receipt", crowdSteps},
	{"many calls of Result share a connection and its statements, outlast a lost one, and return each its own run's result", "a service that waits for its runs would take all connections of the database", crowdResults},
}

const crowd = 40

// inCrowd runs fn in many goroutines at once and waits for all of them.
func inCrowd(fn func(n int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for n := range crowd {
		all.Add(1)
		go func() {
			defer all.Done()
			<-start
			fn(n)
		}()
	}
	close(start)
	all.Wait()
}

func crowdEnqueues(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "crowd")
	const each = 5
	ids := make([][each]int64, crowd)
	inCrowd(func(n int) {
		for i := range each {
			opts := []pgqrs.Option{pgqrs.Priority(n%4 - 1), pgqrs.Headers(map[string]string{"n": fmt.Sprint(n)})}
			if n%3 == 0 {
				opts = append(opts, pgqrs.Delay(time.Hour))
			}
			id, err := q.Enqueue(t.Context(), fmt.Sprintf("%d/%d", n, i), opts...)
			if err != nil {
				t.Error(err)
			}
			ids[n][i] = id
		}
	})
	seen := map[int64]bool{}
	for n := range crowd {
		if !slices.IsSorted(ids[n][:]) {
			t.Errorf("ids of one goroutine's calls, in order: %v", ids[n])
		}
		for i, id := range ids[n] {
			m := e.info(t, id)
			seen[id] = true
			sameJSON(t, m.Raw, fmt.Sprintf("%q", fmt.Sprintf("%d/%d", n, i)))
			equal(t, "priority", m.Priority, n%4-1)
			equal(t, "header", m.Headers["n"], fmt.Sprint(n))
			equal(t, "is scheduled", m.State == pgqrs.Scheduled, n%3 == 0)
		}
	}
	equal(t, "ids", len(seen), crowd*each)
	stats := e.stats(t, "crowd")
	equal(t, "messages", int(stats.Ready+stats.Scheduled), crowd*each)
}

func crowdCancels(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "crowd")
	var stored, refused, unknown tally[int]
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	inCrowd(func(n int) {
		for i := range 5 {
			mine := t.Context()
			if n%2 == 0 {
				mine = ctx
			}
			_, err := q.Enqueue(mine, n*5+i)
			switch {
			case err == nil:
				stored.add(n*5 + i)
			case !errors.Is(err, context.Canceled) || n%2 != 0:
				t.Errorf("call %d of goroutine %d: %v", i, n, err)
			case strings.Contains(err.Error(), "nothing was done"):
				refused.add(n*5 + i)
			default:
				unknown.add(n*5 + i) // a driver's own error
			}
			if i == 1 {
				once.Do(cancel)
			}
		}
	})
	there := map[int]bool{}
	for _, m := range dequeue(t, q, crowd*5) {
		equal(t, "stored twice", there[m.Payload], false)
		there[m.Payload] = true
	}
	for _, n := range stored.all() {
		equal(t, fmt.Sprintf("whether %d is stored, whose call succeeded", n), there[n], true)
	}
	for _, n := range refused.all() {
		equal(t, fmt.Sprintf("whether %d is stored, whose call said that nothing was done", n), there[n], false)
	}
}

func crowdAcks(t *testing.T, e *env) {
	q := jobs(e)
	value(q.EnqueueBatch(t.Context(), make([]string, crowd)))(t)
	ms := dequeue(t, q, crowd)
	var lost []*pgqrs.Message[string]
	for n := 0; n < crowd; n += 2 {
		lost = append(lost, ms[n])
	}
	must(t, q.Release(t.Context(), 0, lost...))
	inCrowd(func(n int) {
		err := q.Ack(t.Context(), ms[n])
		if n%2 != 0 && err != nil {
			t.Errorf("ack of message %d, which is held: %v", ms[n].ID, err)
		}
		if n%2 == 0 && (!errors.Is(err, pgqrs.ErrLeaseLost) || !strings.Contains(err.Error(), fmt.Sprintf("[%d]", ms[n].ID))) {
			t.Errorf("ack of message %d, which is lost: %v; want ErrLeaseLost that names it alone", ms[n].ID, err)
		}
	})
	stats := e.stats(t, "jobs")
	equal(t, "archived", int(stats.Archived), crowd/2)
	equal(t, "ready", int(stats.Ready), crowd/2)
}

func crowdSteps(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, []string](e.store, "crowd")
	worker := fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) ([]string, error) {
		var list []string
		for i := range 5 {
			s, err := pgqrs.Step(ctx, run, fmt.Sprint("step ", i), func(context.Context) (string, error) {
				return fmt.Sprintf("%d/%d", n, i), nil
			})
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	}))
	worker.Concurrency = crowd
	runs := make([]*pgqrs.RunHandle[[]string], crowd)
	for n := range runs {
		runs[n] = value(w.Start(t.Context(), n))(t)
	}
	start(t, worker)
	for n, run := range runs {
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprintf("%d/%d", n, i))
		}
		equalSlices(t, fmt.Sprintf("result of run %d", n), value(run.Result(t.Context()))(t), want)
		for i, s := range value(run.Steps(t.Context()))(t) {
			equal(t, "status", s.Status, pgqrs.Succeeded)
			sameJSON(t, s.Output, fmt.Sprintf("%q", want[i]))
		}
	}
}

func crowdResults(t *testing.T, e *env) {
	const n, failing = 200, 7
	w := pgqrs.NewWorkflow[int, int](e.store, "crowd")
	far, net := e.farStore(t)
	var looks, lost gauge
	net.fail(func(text string) fault {
		if !mentions(text, "pgqrs:run.get |pgqrs:run.polled ") {
			return none
		}
		looks.add(1)
		if now, _ := looks.read(); now%5 != 4 {
			return none
		}
		lost.add(1)
		return refused
	})
	runs := make([]*pgqrs.RunHandle[int], n)
	for i := range runs {
		runs[i] = pgqrs.NewWorkflow[int, int](far, "crowd").RunHandle(value(w.Start(t.Context(), i))(t).ID())
	}
	results, errs := make([]int, n), make([]error, n)
	began := time.Now()
	var all sync.WaitGroup
	for i, run := range runs {
		all.Add(1)
		go func() {
			defer all.Done()
			results[i], errs[i] = run.Result(t.Context())
		}()
	}
	eventually(t, "a statement is lost", func() bool { now, _ := lost.read(); return now > 0 })
	start(t, fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, i int) (int, error) {
		if i%failing == 0 {
			return 0, fmt.Errorf("no %d", i)
		}
		return 10 * i, nil
	})))
	all.Wait()
	now, _ := looks.read()
	if most := 100 + int(30*time.Since(began).Seconds()); now > most {
		t.Errorf("%d calls sent %d statements in %v; want %d at most", n, now, time.Since(began), most)
	}
	if open := far.DB().Stats().OpenConnections; open > 1 {
		t.Errorf("%d connections are open, want one", open)
	}
	for i := range n {
		var failed *pgqrs.RunError
		if errors.As(errs[i], &failed) != (i%failing == 0) || errs[i] != nil && failed == nil {
			t.Errorf("result %d is the error %v", i, errs[i])
		}
		if errs[i] == nil {
			equal(t, fmt.Sprintf("result %d", i), results[i], 10*i)
		}
	}
}
