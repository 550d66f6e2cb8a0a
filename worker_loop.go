package pgqrs

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// schedule is the scheduler. It returns when a drain is over. All that it waits
// for comes by one channel: a select costs several times as much, for each message.
func (r *running) schedule(ctx context.Context) {
	stop := context.AfterFunc(ctx, r.ring)
	defer stop()
	defer r.stopReads()
	defer r.nextPoll.stop()
	defer r.patience.stop()
	r.nextPoll.set(0)
	for !r.abandoned {
		r.dispatch()
		r.ask()
		if !r.draining && r.allStopped() {
			r.drain()
		}
		if r.draining && r.busy == 0 && !r.claiming && !r.polling && !r.looking {
			return
		}
		r.hear(ctx, <-r.finished)
		for range len(r.finished) {
			r.hear(ctx, <-r.finished)
		}
	}
}

// hear takes in that a handler has returned, or that the bell was rung.
func (r *running) hear(ctx context.Context, d *delivery) {
	if d != nil {
		r.freed(d)
		return
	}
	r.rung.Store(false)
	for len(r.answers) > 0 {
		r.answered(<-r.answers)
	}
	r.wake()
	select {
	case words := <-r.statuses:
		r.obey(words)
	default:
	}
	if r.nextPoll.due() {
		r.pollDue = true
	}
	if ctx.Err() != nil && !r.draining {
		r.drain()
	}
	if r.patience.due() {
		if r.cut {
			r.abandoned = true
			return
		}
		r.cut = true
		r.patience.set(cutWait)
		r.cutShort()
	}
}

// ring has the scheduler look at everything but what handlers do.
func (r *running) ring() {
	if r.rung.CompareAndSwap(false, true) {
		r.finished <- nil // there is room for one
	}
}

// An alarm rings the scheduler's bell at a time. It belongs to the scheduler.
type alarm struct {
	ring  func()
	timer *time.Timer
	at    time.Time // zero: never
}

func (a *alarm) set(d time.Duration) {
	a.at = time.Now().Add(d)
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.ring)
	} else {
		a.timer.Reset(d)
	}
}

// due reports, once, that the time has come.
func (a *alarm) due() bool {
	if a.at.IsZero() || time.Now().Before(a.at) {
		return false
	}
	a.at = time.Time{}
	return true
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// dispatch starts handlers for waiting messages while there are slots.
func (r *running) dispatch() {
	for slots := r.Concurrency - r.hungry(); ; {
		l := r.turn(&r.lastServed, func(l *lane) bool {
			return len(l.waiting) > 0 && l.busy < l.limit && (l.flush != nil || r.busy-r.batched < slots)
		})
		if l == nil {
			return
		}
		d := l.waiting[0]
		l.waiting[0] = nil // or the slice would keep it while the queue is idle
		l.waiting = l.waiting[1:]
		if r.begin(d) {
			r.count(l, 1)
		}
	}
}

// count counts handlers of a lane that begin, or end.
func (r *running) count(l *lane, n int) {
	l.busy += n
	r.busy += n
	if l.flush != nil {
		r.batched += n
	}
}

// hungry counts the lanes that have messages to claim, but none in hand. A slot
// is kept free for each, or a busy lane would fill every slot as it becomes free.
func (r *running) hungry() int {
	n := 0
	for _, l := range r.lanes {
		if l.flush == nil && l.more && !l.gate.closed && !l.off && !l.stopped && !r.draining && len(l.waiting) == 0 && l.busy == 0 {
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

// ask sends the database the next questions: a poll and a look that are due, and a claim, one of each at a time.
func (r *running) ask() {
	if r.draining {
		return
	}
	if r.pollDue && !r.polling {
		r.pollDue = false
		for _, l := range r.lanes {
			l.more = l.more || l.low.stands() // a claim from there on does not read what a poll would
		}
		if ids := r.idle(); len(ids) > 0 {
			r.polling = true
			go r.answer(answer{}, func() answer { return r.poll(ids) })
		} else {
			r.schedulePoll()
		}
	}
	if !r.looking {
		r.lookBack()
	}
	if !r.claiming {
		r.claimNext()
	}
}

// lookBack has the claims of a lane looked after, if that is due.
func (r *running) lookBack() {
	l := r.turn(&r.lastLooked, func(l *lane) bool { return !l.off && !l.stopped && l.low.lookDue() })
	if l != nil {
		r.looking = true
		to := l.low.lookTo()
		go r.answer(answer{lane: l, look: true, from: to}, func() answer { return r.look(l, to) })
	}
}

// claimNext claims for the next lane that wants messages.
func (r *running) claimNext() {
	var n int
	var alone bool
	l := r.turn(&r.lastAsked, func(l *lane) bool {
		n, alone = r.want(l)
		return n > 0
	})
	if l != nil {
		r.claiming = true
		seen := l.seen
		l.again, l.seen = false, false
		l.eased.Store(false)
		place, n := l.low.next(n)
		go r.answer(answer{lane: l, asked: n, alone: alone, seen: seen}, func() answer {
			a := r.claim(l, n, alone, place)
			a.seen = seen
			return a
		})
	}
}

// answer sends the scheduler what the database says, whatever the Observer does that is told of it.
func (r *running) answer(a answer, ask func() answer) {
	a.err = foreign.ErrGoexit
	defer func() {
		r.answers <- a // there is room for one of each
		r.ring()
	}()
	a = ask()
	for _, d := range a.ms {
		r.store.observeClaim(r.base, d.m)
	}
}

// want says how many messages to claim for a lane, and whether one that may
// be poison is welcome: it must go straight into a free slot.
func (r *running) want(l *lane) (n int, alone bool) {
	if !l.more || l.gate.closed || l.off || l.stopped || r.unrecorded() > maxUnrecorded {
		return 0, false
	}
	free := r.free(l)
	alone = free > 0 && len(l.waiting) == 0
	if l.needsSlot && !alone {
		return 0, false
	}
	prefetch := 0
	if l.average > 0 && !l.limited.Load() {
		prefetch = min(maxPrefetch, maxPrefetchSize/max(1, l.size), int(float64(l.limit)*float64(prefetchTime)/float64(l.average)))
	}
	if len(l.waiting) > max(free, prefetch/2) {
		return 0, false // claim again when there is room for a batch worth it
	}
	return min(maxClaim, claimable(free+prefetch-len(l.waiting), l.size)), alone
}

// free returns how many messages of a lane could be begun.
func (r *running) free(l *lane) int {
	free := l.limit - l.busy
	if l.flush == nil {
		free = min(free, r.Concurrency-r.busy+r.batched)
	}
	return free
}

// answered takes in what the database said.
func (r *running) answered(a answer) {
	switch {
	case a.look:
		r.looking = false
		if a.lane.low.hasLooked(a) {
			a.lane.more, a.lane.again = true, true
		}
		return
	case a.lane == nil:
		r.polling = false
	default:
		r.claiming = false
	}
	if a.err == nil {
		r.failures = 0
	}
	soon := r.soon
	r.soon = soon && (r.polling || r.claiming)
	switch {
	case a.err != nil:
		r.failures++
		r.setPoll(min(r.PollInterval<<min(r.failures-1, 10), max(r.PollInterval, maxFailurePoll)))
		if soon {
			r.expect()
		}
		switch {
		case a.lane != nil:
			a.lane.more = false
			a.lane.low.failed(a)
		case a.stuck:
			for _, l := range r.lanes {
				l.more = true // there is a way past what it was reading
			}
		}
	case a.lane == nil:
		for _, l := range r.lanes {
			// After a claim with an unknown end, what it took does not show as due.
			l.seen = l.seen || a.due[l.worker.Load()] && !l.more
			l.more = l.more || a.due[l.worker.Load()] || l.doubtful.Load()
		}
		r.schedulePoll()
	default:
		r.claimed(a)
		// What has been enqueued since the claim began may have come too late for
		// it. If there is no slot for it anyway, the next poll is soon enough.
		l := a.lane
		l.more = l.more || l.again && r.free(l) > len(l.waiting)
	}
}

func (r *running) claimed(a answer) {
	l := a.lane
	l.low.claimed(a, r.far())
	switch n := len(a.ms); {
	case a.room.closed():
		r.close(l, a.room)
	case n == 0 && !a.alone && a.seen && a.from.isBeginning():
		l.needsSlot = true // or a claim from the beginning would have got what the poll saw
	case n == 0:
		l.more, l.needsSlot = false, false
		if !a.alone && a.from.isBeginning() {
			r.expect() // a poll tells whether a message is waiting for a slot
		}
	default:
		l.needsSlot = false
		total := totalSize(a.ms)
		l.size = total / n
		r.lastActive = time.Now()
		if n < a.asked && total < maxPrefetchSize {
			// Dry, or short of one that wants a slot of its own: look again soon.
			l.more = false
			r.expect()
		}
	}
	if r.draining || l.off || l.stopped {
		r.giveBack(a.ms)
		return
	}
	l.waiting = append(l.waiting, a.ms...)
}

// far reports whether the database can claim from a place on.
func (r *running) far() bool { return len(r.store.dialect.lease.nextClaim) > 0 }

// totalSize is how many bytes messages have.
func totalSize(ds []*delivery) int {
	total := 0
	for _, d := range ds {
		total += d.m.stored
	}
	return total
}

// claimable bounds a claim of n messages by the size of those that came last. The statement stops at claimedBytes
// by itself, but reads each message that it is asked for.
func claimable(n, size int) int {
	const least = 32
	return min(n, max(least, 2*maxPrefetchSize/max(1, size)))
}

// wake looks which lanes have something new.
func (r *running) wake() {
	for _, l := range r.lanes {
		l.open()
		if l.waker.now.Swap(false) {
			l.more, l.again = true, true
		}
		if l.waker.soon.Swap(false) {
			r.soon = r.polling || r.claiming // the answer is to what was asked before
			r.expect()
		}
	}
}

// expect polls soon, and then ever less soon until it is back to normal.
func (r *running) expect() {
	r.lastActive = time.Now()
	r.hint = 5 * time.Millisecond
	r.setPoll(r.hint)
}

const (
	activeFor      = 30 * time.Second // after the latest message
	idlePoll       = time.Second
	maxFailurePoll = 5 * time.Second // while the database does not answer
)

// schedulePoll sets the time of the next poll.
func (r *running) schedulePoll() {
	d := r.PollInterval
	if r.active {
		r.lastActive, r.active = time.Now(), false
	}
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
	r.setPoll(d)
}

func (r *running) setPoll(d time.Duration) {
	r.nextPoll.set(time.Duration(float64(d) * (0.8 + rand.Float64()*0.4)))
}

// idle returns the workers whose lanes are not known to have messages.
func (r *running) idle() []int64 {
	var ids []int64
	for _, l := range r.lanes {
		if !l.more && !l.gate.closed && !l.off && !l.stopped {
			ids = append(ids, l.worker.Load())
		}
	}
	return ids
}

// freed takes note that a handler has returned.
func (r *running) freed(d *delivery) {
	r.active = true
	r.count(d.lane, -1)
	if d.lane.average == 0 {
		d.lane.average = max(1, d.took)
	} else {
		d.lane.average += (max(1, d.took) - d.lane.average) / 8
	}
}

// obey takes in what the worker rows say.
func (r *running) obey(words map[*lane]string) {
	for l, word := range words {
		wasOff := l.off || l.stopped
		l.off, l.stopped = word == "suspended" || word == "interrupted" || word == taken, l.stopped || word == "stopped"
		if nowOff := l.off || l.stopped; nowOff != wasOff {
			r.log.Info("pgqrs: the worker's status has changed", "queue", l.queue, "status", word)
			if nowOff {
				r.giveBack(l.waiting)
				l.waiting = nil
			} else {
				l.more = true
			}
		}
	}
}

// allStopped reports whether somebody has stopped all lanes.
func (r *running) allStopped() bool {
	for _, l := range r.lanes {
		if !l.stopped {
			return false
		}
	}
	return len(r.lanes) > 0
}
