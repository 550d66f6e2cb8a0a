package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A running is a Worker at work. One goroutine, the scheduler, decides what is
// claimed and what is handled when; the database is asked and handlers are
// called on others, which send it their answers.
type running struct {
	*Worker
	store *Store
	log   *slog.Logger
	lanes []*lane
	base  context.Context // of handlers and statements: Run's values, never done

	recorder recorder
	answers  chan answer
	finished chan *delivery
	statuses chan map[*lane]string
	bell     chan struct{}

	mu   sync.Mutex
	held map[int64]*delivery // every message leased to it, by id

	// The rest belongs to the scheduler.
	busy       int  // handlers running
	asking     bool // an answer is on its way
	draining   bool
	cut        bool // Grace is over
	lastServed int  // lane of the latest message that was begun
	lastAsked  int  // lane of the latest claim
	pollDue    bool
	lastActive time.Time
	failures   int           // questions in a row that the database did not answer
	hint       time.Duration // until the next poll, when something is about to come; 0: nothing is
}

// A lane is one queue of a running Worker.
type lane struct {
	Handler
	worker   atomic.Int64 // id of its row
	doubtful atomic.Bool  // a claim may have committed unheard
	waker    waker

	// The rest belongs to the scheduler.
	limit     int // handlers at a time
	busy      int
	waiting   []*delivery   // claimed, and waiting for a slot
	more      bool          // there may be messages
	needsSlot bool          // the next message is to be claimed only into a free slot
	off       bool          // suspended
	stopped   bool          // for good
	average   time.Duration // of what a handler takes
}

// An answer is what the database said: to a claim on a lane, or to a poll.
type answer struct {
	lane  *lane
	asked int
	alone bool
	ms    []*delivery
	due   map[int64]bool // workers with messages due
	err   error
}

func newRunning(ctx context.Context, w *Worker) *running {
	store := w.Handlers[0].store
	r := &running{
		Worker: w, store: store, log: store.log.With("worker", w.Name),
		base:    context.WithoutCancel(ctx),
		answers: make(chan answer, 1), finished: make(chan *delivery, w.Concurrency),
		statuses: make(chan map[*lane]string, 1), bell: make(chan struct{}, 1),
		held: map[int64]*delivery{}, lastActive: time.Now(),
	}
	for _, h := range w.Handlers {
		for i := len(w.Middleware) - 1; i >= 0; i-- {
			h.work = w.Middleware[i](h.work)
		}
		l := &lane{Handler: h, limit: w.Concurrency, more: true}
		if c := h.policy.Concurrency; c > 0 {
			l.limit = min(c, w.Concurrency)
		}
		l.waker.bell = r.bell
		r.lanes = append(r.lanes, l)
	}
	r.recorder = recorder{r: r, work: make(chan struct{}, 1)}
	return r
}

// register makes a row for each lane. A name that is in use may be that of a
// process that died: it waits until that would have shown.
func (r *running) register(ctx context.Context) error {
	deadline := time.Now().Add(silence + 5*time.Second)
	for _, l := range r.lanes {
		for {
			id, err := r.store.register(ctx, l.queue, r.rowName(l), "polling")
			if err == nil {
				l.worker.Store(id)
				break
			}
			if !errors.Is(err, ErrState) || time.Now().After(deadline) {
				return err
			}
			r.log.Warn("pgqrs: waiting for a worker of the same name to be given up", "queue", l.queue)
			if !pause(ctx, time.Second) {
				return ctx.Err()
			}
		}
	}
	return nil
}

func (r *running) rowName(l *lane) string { return r.Name + "/" + l.queue }

// run works until ctx is done and everything is wound up.
func (r *running) run(ctx context.Context) error {
	for _, l := range r.lanes {
		defer r.store.listen(l.queue, &l.waker)()
	}
	var upkeep, beating sync.WaitGroup
	upkeepCtx, stopUpkeep := context.WithCancel(ctx)
	beatCtx, stopBeating := context.WithCancel(r.base)
	upkeep.Add(1)
	go func() { defer upkeep.Done(); r.maintain(upkeepCtx) }()
	beating.Add(2)
	go func() { defer beating.Done(); r.beat(beatCtx) }()
	go func() { defer beating.Done(); r.recorder.run(beatCtx) }()

	r.schedule(ctx)

	stopUpkeep()
	upkeep.Wait()
	stopBeating()
	beating.Wait()
	r.recorder.finish()
	r.retire()
	return r.leftOver()
}

// schedule is the scheduler. It returns when a drain is over.
func (r *running) schedule(ctx context.Context) {
	poll := time.NewTimer(0)
	defer poll.Stop()
	done := ctx.Done()
	var limit <-chan time.Time // of Grace, then of cutWait
	for {
		r.dispatch()
		r.ask(poll)
		if !r.draining && r.allStopped() {
			limit = r.drain()
		}
		if r.draining && r.busy == 0 && !r.asking {
			return
		}
		select {
		case d := <-r.finished:
			r.freed(d)
		case a := <-r.answers:
			r.asking = false
			r.answered(a, poll)
		case <-r.bell:
			r.rung(poll)
		case <-poll.C:
			r.pollDue = true
		case words := <-r.statuses:
			r.obey(words)
		case <-done:
			done = nil
			if !r.draining {
				limit = r.drain()
			}
		case <-limit:
			if r.cut {
				return
			}
			r.cut, limit = true, time.After(cutWait)
			r.cutShort()
		}
	}
}

// dispatch starts handlers for waiting messages while there are slots.
func (r *running) dispatch() {
	for slots := r.Concurrency - r.hungry(); r.busy < slots; {
		l := r.turn(&r.lastServed, func(l *lane) bool { return len(l.waiting) > 0 && l.busy < l.limit })
		if l == nil {
			return
		}
		d := l.waiting[0]
		l.waiting = l.waiting[1:]
		if r.begin(d) {
			l.busy++
			r.busy++
		}
	}
}

// hungry counts the lanes that have messages to claim, but none in hand. A slot
// is kept free for each, or a busy lane would fill every slot as it becomes free.
func (r *running) hungry() int {
	n := 0
	for _, l := range r.lanes {
		if l.more && !l.off && !l.stopped && !r.draining && len(l.waiting) == 0 && l.busy == 0 {
			n++
		}
	}
	return n
}

// turn returns the first lane after the last one whose turn it was that has
// something to do, or nil.
func (r *running) turn(last *int, wants func(*lane) bool) *lane {
	for i := range r.lanes {
		n := (*last + 1 + i) % len(r.lanes)
		if wants(r.lanes[n]) {
			*last = n
			return r.lanes[n]
		}
	}
	return nil
}

// ask sends the database the next question, one at a time: a poll that is due, or a claim.
func (r *running) ask(poll *time.Timer) {
	if r.asking || r.draining {
		return
	}
	if r.pollDue {
		r.pollDue = false
		if ids := r.idle(); len(ids) > 0 {
			r.asking = true
			go func() { r.answers <- r.poll(ids) }()
			return
		}
		r.schedulePoll(poll)
	}
	var n int
	var alone bool
	l := r.turn(&r.lastAsked, func(l *lane) bool {
		n, alone = r.want(l)
		return n > 0
	})
	if l != nil {
		r.asking = true
		go func() { r.answers <- r.claim(l, n, alone) }()
	}
}

// want says how many messages to claim for a lane, and whether one that may
// be poison is welcome: it must go straight into a free slot.
func (r *running) want(l *lane) (n int, alone bool) {
	if !l.more || l.off || l.stopped || r.unrecorded() > maxUnrecorded {
		return 0, false
	}
	free := min(r.Concurrency-r.busy, l.limit-l.busy)
	alone = free > 0 && len(l.waiting) == 0
	if l.needsSlot && !alone {
		return 0, false
	}
	prefetch := 0
	if l.average > 0 {
		prefetch = min(maxPrefetch, int(float64(l.limit)*float64(prefetchTime)/float64(l.average)))
	}
	if len(l.waiting) > max(free, prefetch/2) {
		return 0, false // claim again when there is room for a batch worth it
	}
	return min(maxClaim, free+prefetch-len(l.waiting)), alone
}

// answered takes in what the database said.
func (r *running) answered(a answer, poll *time.Timer) {
	if a.err == nil {
		r.failures = 0
	}
	switch {
	case a.err != nil:
		r.failures++
		r.setPoll(poll, min(r.PollInterval<<min(r.failures-1, 10), max(r.PollInterval, maxFailurePoll)))
		if a.lane != nil {
			a.lane.more = false
		}
	case a.lane == nil:
		for _, l := range r.lanes {
			// After a claim with an unknown end, what it took does not show as due.
			l.more = l.more || a.due[l.worker.Load()] || l.doubtful.Load()
		}
		r.schedulePoll(poll)
	default:
		r.claimed(a, poll)
	}
}

func (r *running) claimed(a answer, poll *time.Timer) {
	l := a.lane
	switch n := len(a.ms); {
	case n == 0 && !a.alone:
		l.needsSlot = true
	case n == 0:
		l.more, l.needsSlot = false, false
	default:
		l.needsSlot = false
		r.lastActive = time.Now()
		if n < a.asked {
			// Dry, or short of one that wants a slot of its own: look again soon.
			l.more = false
			r.expect(poll)
		}
	}
	if r.draining || l.off || l.stopped {
		r.giveBack(a.ms)
		return
	}
	l.waiting = append(l.waiting, a.ms...)
}

// rung looks who rang.
func (r *running) rung(poll *time.Timer) {
	for _, l := range r.lanes {
		if l.waker.now.Swap(false) {
			l.more = true
		}
		if l.waker.soon.Swap(false) {
			r.expect(poll)
		}
	}
}

// expect polls soon, and then ever less soon until it is back to normal.
func (r *running) expect(poll *time.Timer) {
	r.lastActive = time.Now()
	r.hint = 5 * time.Millisecond
	r.setPoll(poll, r.hint)
}

const (
	activeFor      = 30 * time.Second // after the latest message
	idlePoll       = time.Second
	maxFailurePoll = 5 * time.Second // while the database does not answer
)

// schedulePoll sets the time of the next poll.
func (r *running) schedulePoll(poll *time.Timer) {
	d := r.PollInterval
	if idle := time.Since(r.lastActive); idle > activeFor && d < idlePoll {
		d = min(idlePoll, d+time.Duration(float64(idle-activeFor)/10))
	}
	if r.hint > 0 {
		if r.hint *= 2; r.hint >= d {
			r.hint = 0
		} else {
			d = r.hint
		}
	}
	r.setPoll(poll, d)
}

func (r *running) setPoll(poll *time.Timer, d time.Duration) {
	poll.Reset(time.Duration(float64(d) * (0.8 + rand.Float64()*0.4)))
}

// idle returns the workers whose lanes are not known to have messages.
func (r *running) idle() []int64 {
	var ids []int64
	for _, l := range r.lanes {
		if !l.more && !l.off && !l.stopped {
			ids = append(ids, l.worker.Load())
		}
	}
	return ids
}

// freed takes note that a handler has returned.
func (r *running) freed(d *delivery) {
	r.busy--
	d.lane.busy--
	if d.lane.average == 0 {
		d.lane.average = max(1, d.took)
	} else {
		d.lane.average += (max(1, d.took) - d.lane.average) / 8
	}
	r.lastActive = time.Now()
}

// obey takes in what the worker rows say.
func (r *running) obey(words map[*lane]string) {
	for l, word := range words {
		wasOff := l.off || l.stopped
		l.off, l.stopped = word == "suspended" || word == "interrupted", l.stopped || word == "stopped"
		if nowOff := l.off || l.stopped; nowOff != wasOff {
			r.log.Info("pgqrs: worker is "+word, "queue", l.queue)
			if nowOff {
				r.giveBack(l.waiting)
				l.waiting = nil
			} else {
				l.more = true
			}
		}
	}
}

func (r *running) allStopped() bool {
	for _, l := range r.lanes {
		if !l.stopped {
			return false
		}
	}
	return true
}

// drain claims no more and gives back what no handler has begun. It returns
// when Grace is over.
func (r *running) drain() <-chan time.Time {
	r.draining = true
	for _, l := range r.lanes {
		r.giveBack(l.waiting)
		l.waiting = nil
	}
	return time.After(r.Grace)
}

// retire gives back what a claim with an unknown end may have taken, and marks the rows stopped.
func (r *running) retire() {
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	for _, l := range r.lanes {
		if l.worker.Load() == 0 {
			continue // it was never made
		}
		if l.doubtful.Load() {
			if err := r.releaseStrays(ctx, l); err != nil {
				r.log.Warn("pgqrs: could not give back messages of a claim whose answer was lost", "queue", l.queue, "err", err)
			}
		}
		if _, err := r.store.moveWorker(ctx, l.worker.Load(), "stopped"); err != nil {
			r.log.Warn("pgqrs: could not mark the worker stopped", "queue", l.queue, "err", err)
		}
	}
}

// leftOver names the messages whose handlers did not return.
func (r *running) leftOver() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, d := range r.held {
		if d.cancel != nil && !d.finished {
			names = append(names, fmt.Sprintf("message %d of queue %q", d.m.ID, d.lane.queue))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d handlers did not return within Grace and %v: %s", ErrTimeout, len(names), cutWait, strings.Join(names, ", "))
}
