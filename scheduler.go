package pgqrs

import (
	"context"
	"math/rand/v2"
	"time"
)

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
			for len(r.finished) > 0 {
				r.freed(<-r.finished)
			}
			r.active = true
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
		l.eased.Store(false)
		go func() { r.answers <- r.claim(l, n, alone) }()
	}
}

// want says how many messages to claim for a lane, and whether one that may
// be poison is welcome: it must go straight into a free slot.
func (r *running) want(l *lane) (n int, alone bool) {
	if !l.more || l.gate.closed || l.off || l.stopped || r.unrecorded() > maxUnrecorded {
		return 0, false
	}
	free := l.limit - l.busy
	if l.flush == nil {
		free = min(free, r.Concurrency-r.busy+r.batched)
	}
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
	return min(maxClaim, free+prefetch-len(l.waiting)), alone
}

// answered takes in what the database said.
func (r *running) answered(a answer, poll *time.Timer) {
	if a.err == nil {
		r.failures = 0
	}
	soon := r.soon
	r.soon = false
	switch {
	case a.err != nil:
		r.failures++
		r.setPoll(poll, min(r.PollInterval<<min(r.failures-1, 10), max(r.PollInterval, maxFailurePoll)))
		if soon {
			r.expect(poll)
		}
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
	case a.room.closed():
		r.close(l, a.room)
	case n == 0 && a.rest:
		r.short(l, poll)
	case n == 0 && !a.alone:
		l.needsSlot = true
	case n == 0:
		l.more, l.needsSlot = false, false
	default:
		l.needsSlot = false
		l.size = averageSize(a.ms)
		r.lastActive = time.Now()
		if n < a.asked {
			r.short(l, poll)
		}
	}
	if r.draining || l.off || l.stopped {
		r.giveBack(a.ms)
		return
	}
	l.waiting = append(l.waiting, a.ms...)
}

// short takes note that there was less than was asked for: the lane is dry, or
// what is left wants a slot of its own. Either way it looks again soon.
func (r *running) short(l *lane, poll *time.Timer) {
	l.more, l.needsSlot = false, false
	r.expect(poll)
}

// averageSize is how many bytes the payload of a message has.
func averageSize(ds []*delivery) int {
	total := 0
	for _, d := range ds {
		total += len(d.m.Raw)
	}
	return total / len(ds)
}

// rung looks who rang.
func (r *running) rung(poll *time.Timer) {
	for _, l := range r.lanes {
		l.open()
		if l.waker.now.Swap(false) {
			l.more = true
		}
		if l.waker.soon.Swap(false) {
			r.soon = r.asking // the answer is to what was asked before
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
	r.setPoll(poll, d)
}

func (r *running) setPoll(poll *time.Timer, d time.Duration) {
	poll.Reset(time.Duration(float64(d) * (0.8 + rand.Float64()*0.4)))
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
		l.off, l.stopped = word == "suspended" || word == "interrupted", l.stopped || word == "stopped"
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
