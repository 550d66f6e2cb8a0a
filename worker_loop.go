package pgqrs

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// dispatchLoop is the dispatch loop. It returns when a drain is over. All that it waits
// for comes by one channel: a select costs several times as much, for each message.
func (r *runner) dispatchLoop(ctx context.Context) {
	stop := context.AfterFunc(ctx, r.wake)
	defer stop()
	defer r.stopReads()
	defer r.nextPoll.stop()
	defer r.drainTimer.stop()
	r.nextPoll.set(0)
	for !r.abandoned {
		r.dispatch()
		r.startQueries()
		if !r.draining && r.allStopped() {
			r.drain()
		}
		if r.draining && r.handling == 0 && !r.claiming && !r.polling && !r.rescanning {
			return
		}
		r.takeEvent(ctx, <-r.finished)
		for range len(r.finished) {
			r.takeEvent(ctx, <-r.finished)
		}
	}
}

// takeEvent takes in that a handler has returned, or that the loop was woken.
func (r *runner) takeEvent(ctx context.Context, d *delivery) {
	if d != nil {
		r.handlerReturned(d)
		return
	}
	r.woken.Store(false)
	for len(r.answers) > 0 {
		r.answered(<-r.answers)
	}
	r.takeWakeUps()
	select {
	case words := <-r.workerStatuses:
		r.applyStatuses(words)
	default:
	}
	if r.nextPoll.due() {
		r.pollDue = true
	}
	if ctx.Err() != nil && !r.draining {
		r.drain()
	}
	if r.drainTimer.due() {
		if r.cut {
			r.abandoned = true
			return
		}
		r.cut = true
		r.drainTimer.set(cancelWait)
		r.cancelHandlers()
	}
}

// wake has the dispatch loop look at everything but what handlers do.
func (r *runner) wake() {
	if r.woken.CompareAndSwap(false, true) {
		r.finished <- nil // there is room for one
	}
}

// A loopTimer rings the dispatch loop at a time. It belongs to the dispatch loop.
type loopTimer struct {
	wake  func()
	timer *time.Timer
	at    time.Time // zero: never
}

func (a *loopTimer) set(d time.Duration) {
	a.at = time.Now().Add(d)
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.wake)
	} else {
		a.timer.Reset(d)
	}
}

// due reports, once, that the time has come.
func (a *loopTimer) due() bool {
	if a.at.IsZero() || time.Now().Before(a.at) {
		return false
	}
	a.at = time.Time{}
	return true
}

func (a *loopTimer) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// dispatch starts handlers for waiting messages while there are slots.
func (r *runner) dispatch() {
	for slots := r.Concurrency - r.queuesWithoutWork(); ; {
		q := r.nextQueue(&r.lastServed, func(q *queueRunner) bool {
			return len(q.waiting) > 0 && q.busy < q.limit && (q.flush != nil || r.handling-r.batching < slots)
		})
		if q == nil {
			return
		}
		d := q.waiting[0]
		q.waiting[0] = nil // or the slice would keep it while the queue is idle
		q.waiting = q.waiting[1:]
		if r.startHandler(d) {
			r.countHandlers(q, 1)
		}
	}
}

// countHandlers counts handlers of a queue runner that begin, or end.
func (r *runner) countHandlers(q *queueRunner, n int) {
	q.busy += n
	r.handling += n
	if q.flush != nil {
		r.batching += n
	}
}

// queuesWithoutWork counts the queue runners that have messages to claim, but none in hand. A slot
// is kept free for each, or a busy queue runner would fill every slot as it becomes free.
func (r *runner) queuesWithoutWork() int {
	n := 0
	for _, q := range r.queues {
		if q.flush == nil && q.mayHaveMessages && !q.throttle.closed && !q.suspended && !q.stopped && !r.draining && len(q.waiting) == 0 && q.busy == 0 {
			n++
		}
	}
	return n
}

// nextQueue returns the first queue runner after the last one whose turn it was that has
// something to do, or nil.
func (r *runner) nextQueue(last *int, wants func(*queueRunner) bool) *queueRunner {
	for i := range r.queues {
		n := (*last + 1 + i) % len(r.queues)
		if wants(r.queues[n]) {
			*last = n
			return r.queues[n]
		}
	}
	return nil
}

// startQueries sends the database the next questions: a poll and a look that are due, and a claim, one of each at a time.
func (r *runner) startQueries() {
	if r.draining {
		return
	}
	if r.pollDue && !r.polling {
		r.pollDue = false
		for _, q := range r.queues {
			q.mayHaveMessages = q.mayHaveMessages || q.cursor.isSet() // a claim from there on does not read what a poll would
		}
		if ids := r.idleWorkers(); len(ids) > 0 {
			r.polling = true
			go r.sendAnswer(queryAnswer{}, func() queryAnswer { return r.poll(ids) })
		} else {
			r.schedulePoll()
		}
	}
	if !r.rescanning {
		r.startRescan()
	}
	if !r.claiming {
		r.startClaim()
	}
}

// startRescan has the claims of a queue runner looked after, if that is due.
func (r *runner) startRescan() {
	q := r.nextQueue(&r.lastRescanned, func(q *queueRunner) bool { return !q.suspended && !q.stopped && q.cursor.rescanDue() })
	if q != nil {
		r.rescanning = true
		to := q.cursor.rescanEnd()
		go r.sendAnswer(queryAnswer{queue: q, rescan: true, from: to}, func() queryAnswer { return r.rescan(q, to) })
	}
}

// startClaim claims for the next queue runner that wants messages.
func (r *runner) startClaim() {
	var n int
	var alone bool
	q := r.nextQueue(&r.lastClaimed, func(q *queueRunner) bool {
		n, alone = r.claimSize(q)
		return n > 0
	})
	if q != nil {
		r.claiming = true
		seen := q.pollSawDue
		q.enqueuedSince, q.pollSawDue = false, false
		q.capacityFreed.Store(false)
		place, n := q.cursor.next(n)
		go r.sendAnswer(queryAnswer{queue: q, asked: n, withSuspects: alone, pollSawDue: seen}, func() queryAnswer {
			a := r.claim(q, n, alone, place)
			a.pollSawDue = seen
			return a
		})
	}
}

// sendAnswer sends the dispatch loop what the database says, whatever the Observer does that is told of it.
func (r *runner) sendAnswer(a queryAnswer, ask func() queryAnswer) {
	a.err = foreign.ErrGoexit
	defer func() {
		r.answers <- a // there is room for one of each
		r.wake()
	}()
	a = ask()
	for _, d := range a.ms {
		r.store.observeClaim(r.handlerBase, d.m)
	}
}

// claimSize says how many messages to claim for a queue runner, and whether one that may
// be poison is welcome: it must go straight into a free slot.
func (r *runner) claimSize(q *queueRunner) (n int, alone bool) {
	if !q.mayHaveMessages || q.throttle.closed || q.suspended || q.stopped || r.pendingCompletions() > maxPendingCompletions {
		return 0, false
	}
	free := r.freeSlots(q)
	alone = free > 0 && len(q.waiting) == 0
	if q.needsSlot && !alone {
		return 0, false
	}
	prefetch := 0
	if q.averageTime > 0 && !q.limited.Load() {
		prefetch = min(maxPrefetch, maxPrefetchSize/max(1, q.averageSize), int(float64(q.limit)*float64(prefetchTime)/float64(q.averageTime)))
	}
	if len(q.waiting) > max(free, prefetch/2) {
		return 0, false // claim again when there is room for a batch worth it
	}
	return min(maxClaim, claimable(free+prefetch-len(q.waiting), q.averageSize)), alone
}

// freeSlots returns how many messages of a queue runner could be begun.
func (r *runner) freeSlots(q *queueRunner) int {
	free := q.limit - q.busy
	if q.flush == nil {
		free = min(free, r.Concurrency-r.handling+r.batching)
	}
	return free
}

// answered takes in what the database said.
func (r *runner) answered(a queryAnswer) {
	switch {
	case a.rescan:
		r.rescanning = false
		if a.queue.cursor.rescanned(a) {
			a.queue.mayHaveMessages, a.queue.enqueuedSince = true, true
		}
		return
	case a.queue == nil:
		r.polling = false
	default:
		r.claiming = false
	}
	if a.err == nil {
		r.failedQueries = 0
	}
	soon := r.pollAgain
	r.pollAgain = soon && (r.polling || r.claiming)
	switch {
	case a.err != nil:
		r.failedQueries++
		r.setPoll(min(r.PollInterval<<min(r.failedQueries-1, 10), max(r.PollInterval, maxFailurePoll)))
		if soon {
			r.pollFast()
		}
		switch {
		case a.queue != nil:
			a.queue.mayHaveMessages = false
			a.queue.cursor.failed(a)
		case a.stuck:
			for _, q := range r.queues {
				q.mayHaveMessages = true // there is a way past what it was reading
			}
		}
	case a.queue == nil:
		for _, q := range r.queues {
			// After a claim with an unknown end, what it took does not show as due.
			q.pollSawDue = q.pollSawDue || a.due[q.worker.Load()] && !q.mayHaveMessages
			q.mayHaveMessages = q.mayHaveMessages || a.due[q.worker.Load()] || q.claimUnknown.Load()
		}
		r.schedulePoll()
	default:
		r.claimed(a)
		// What has been enqueued since the claim began may have come too late for
		// it. If there is no slot for it anyway, the next poll is soon enough.
		q := a.queue
		q.mayHaveMessages = q.mayHaveMessages || q.enqueuedSince && r.freeSlots(q) > len(q.waiting)
	}
}

func (r *runner) claimed(a queryAnswer) {
	q := a.queue
	q.cursor.claimed(a, r.claimsFromPosition())
	switch n := len(a.ms); {
	case a.capacity.closed():
		r.throttle(q, a.capacity)
	case n == 0 && !a.withSuspects && a.pollSawDue && a.from.isBeginning():
		q.needsSlot = true // or a claim from the beginning would have got what the poll saw
	case n == 0:
		q.mayHaveMessages, q.needsSlot = false, false
		if !a.withSuspects && a.from.isBeginning() {
			r.pollFast() // a poll tells whether a message is waiting for a slot
		}
	default:
		q.needsSlot = false
		total := totalSize(a.ms)
		q.averageSize = total / n
		r.lastActive = time.Now()
		if n < a.asked && total < maxPrefetchSize {
			// Dry, or short of one that wants a slot of its own: look again soon.
			q.mayHaveMessages = false
			r.pollFast()
		}
	}
	if r.draining || q.suspended || q.stopped {
		r.giveBack(a.ms)
		return
	}
	q.waiting = append(q.waiting, a.ms...)
}

// claimsFromPosition reports whether the database can claim from a place on.
func (r *runner) claimsFromPosition() bool { return r.store.dialect.claimsFromPosition }

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

// takeWakeUps looks which queue runners have something new.
func (r *runner) takeWakeUps() {
	for _, q := range r.queues {
		q.endThrottle()
		if q.waker.now.Swap(false) {
			q.mayHaveMessages, q.enqueuedSince = true, true
		}
		if q.waker.fast.Swap(false) {
			r.pollAgain = r.polling || r.claiming // the answer is to what was asked before
			r.pollFast()
		}
	}
}

// pollFast polls soon, and then ever less soon until it is back to normal.
func (r *runner) pollFast() {
	r.lastActive = time.Now()
	r.fastPoll = 5 * time.Millisecond
	r.setPoll(r.fastPoll)
}

const (
	activeFor      = 30 * time.Second // after the latest message
	idlePoll       = time.Second
	maxFailurePoll = 5 * time.Second // while the database does not answer
)

// schedulePoll sets the time of the next poll.
func (r *runner) schedulePoll() {
	d := r.PollInterval
	if r.active {
		r.lastActive, r.active = time.Now(), false
	}
	if idle := time.Since(r.lastActive); idle > activeFor && d < idlePoll {
		d = min(idlePoll, d+time.Duration(float64(idle-activeFor)/10))
	}
	if r.fastPoll > 0 {
		if r.fastPoll *= 2; r.fastPoll >= d {
			r.fastPoll = 0
		} else {
			d = r.fastPoll
		}
	}
	r.setPoll(d)
}

func (r *runner) setPoll(d time.Duration) {
	r.nextPoll.set(time.Duration(float64(d) * (0.8 + rand.Float64()*0.4)))
}

// idleWorkers returns the workers whose queue runners are not known to have messages.
func (r *runner) idleWorkers() []int64 {
	var ids []int64
	for _, q := range r.queues {
		if !q.mayHaveMessages && !q.throttle.closed && !q.suspended && !q.stopped {
			ids = append(ids, q.worker.Load())
		}
	}
	return ids
}

// handlerReturned takes note that a handler has returned.
func (r *runner) handlerReturned(d *delivery) {
	r.active = true
	r.countHandlers(d.queue, -1)
	if d.queue.averageTime == 0 {
		d.queue.averageTime = max(1, d.took)
	} else {
		d.queue.averageTime += (max(1, d.took) - d.queue.averageTime) / 8
	}
}

// applyStatuses takes in what the worker rows say.
func (r *runner) applyStatuses(words map[*queueRunner]string) {
	for q, word := range words {
		wasOff := q.suspended || q.stopped
		q.suspended, q.stopped = word == "suspended" || word == "interrupted" || word == rowTaken, q.stopped || word == "stopped"
		if nowOff := q.suspended || q.stopped; nowOff != wasOff {
			r.log.Info("pgqrs: the worker's status has changed", "queue", q.queue, "status", word)
			if nowOff {
				r.giveBack(q.waiting)
				q.waiting = nil
			} else {
				q.mayHaveMessages = true
			}
		}
	}
}

// allStopped reports whether somebody has stopped all queue runners.
func (r *runner) allStopped() bool {
	for _, q := range r.queues {
		if !q.stopped {
			return false
		}
	}
	return len(r.queues) > 0
}
