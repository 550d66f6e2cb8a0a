package pgqrs

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A dispatchLoop decides what a runner claims and which handlers it starts. One goroutine runs it,
// and nothing else uses its fields. Statements and handlers run in other goroutines.
type dispatchLoop struct {
	*runner

	handling  int // handlers that run
	batching  int // handlers of batches that run, which use no slots
	executors int // goroutines that call handlers: the most that ran at once

	polling    bool // a poll is under way
	claiming   bool // a claim is under way
	rescanning bool // a rescan is under way

	draining   bool
	drainTimer loopTimer // set while draining: to Grace, then to cancelWait
	cut        bool      // Grace is over
	abandoned  bool      // cancelWait is over

	lastServed    int // queue of the latest message that was started
	lastClaimed   int // queue of the latest claim
	lastRescanned int // queue of the latest rescan

	nextPoll loopTimer
	pollDue  bool
	// fastPoll is the time until the next poll, while a message is expected. 0 means that none is
	// expected.
	fastPoll      time.Duration
	pollAgain     bool // a message is expected that the current query may be too early for
	failedQueries int  // queries in a row that failed

	active     bool      // a message was handled since the latest poll
	lastActive time.Time // time of the latest message, or of the latest sign of one
}

func newDispatchLoop(r *runner) *dispatchLoop {
	l := &dispatchLoop{runner: r, lastActive: time.Now()}
	l.nextPoll.wake, l.drainTimer.wake = r.wake, r.wake
	return l
}

// run returns when a drain is over. It waits for all events by one channel: a select costs several
// times as much for each message.
func (l *dispatchLoop) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	defer l.stopReads()
	defer l.nextPoll.stop()
	defer l.drainTimer.stop()
	l.nextPoll.set(0)
	for !l.abandoned {
		l.dispatch()
		l.startQueries()
		if !l.draining && l.allStopped() {
			l.drain()
		}
		if l.draining && l.handling == 0 && !l.claiming && !l.polling && !l.rescanning {
			return
		}
		l.takeEvent(ctx, <-l.finished)
		for range len(l.finished) {
			l.takeEvent(ctx, <-l.finished)
		}
	}
}

// takeEvent handles the return of a handler, or a wake-up if d is nil.
func (l *dispatchLoop) takeEvent(ctx context.Context, d *delivery) {
	if d != nil {
		l.handlerReturned(d)
		return
	}
	l.woken.Store(false)
	for len(l.answers) > 0 {
		(<-l.answers).apply(l)
	}
	l.takeWakeUps()
	select {
	case statuses := <-l.workerStatuses:
		l.applyStatuses(statuses)
	default:
	}
	if l.nextPoll.due() {
		l.pollDue = true
	}
	if ctx.Err() != nil && !l.draining {
		l.drain()
	}
	if l.drainTimer.due() {
		l.endGrace()
	}
}

// drain claims no more and gives back messages that no handler has begun.
func (l *dispatchLoop) drain() {
	l.draining = true
	l.stopReads()
	l.mu.Lock()
	for _, d := range l.held {
		d.m.delivery.draining.Store(true)
	}
	l.mu.Unlock()
	for _, q := range l.queues {
		l.giveBack(q.waiting)
		q.waiting = nil
		if q.throttle.closed {
			q.throttle.timer.Stop()
		}
		if q.flush != nil {
			q.flush()
		}
	}
	l.drainTimer.set(l.Grace)
}

// endGrace ends the ctx of handlers when Grace is over, and the loop when cancelWait is over.
func (l *dispatchLoop) endGrace() {
	if l.cut {
		l.abandoned = true
		return
	}
	l.cut = true
	l.drainTimer.set(cancelWait)
	l.cancelHandlers()
}

// wake makes the dispatch loop look at answers, wake-ups, statuses and timers.
func (r *runner) wake() {
	if r.woken.CompareAndSwap(false, true) {
		r.finished <- nil // the channel has room for one
	}
}

// A loopTimer wakes the dispatch loop at a time. Only the loop uses it.
type loopTimer struct {
	wake  func()
	timer *time.Timer
	at    time.Time // zero means never
}

func (t *loopTimer) set(d time.Duration) {
	t.at = time.Now().Add(d)
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.wake)
	} else {
		t.timer.Reset(d)
	}
}

// due reports, once, that the time has come.
func (t *loopTimer) due() bool {
	if t.at.IsZero() || time.Now().Before(t.at) {
		return false
	}
	t.at = time.Time{}
	return true
}

func (t *loopTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

// dispatch starts handlers for waiting messages while there are slots.
func (l *dispatchLoop) dispatch() {
	for slots := l.Concurrency - l.queuesWithoutWork(); ; {
		q := l.nextQueue(&l.lastServed, func(q *queueRunner) bool {
			return len(q.waiting) > 0 && q.handling < q.limit && (q.flush != nil || l.handling-l.batching < slots)
		})
		if q == nil {
			return
		}
		d := q.waiting[0]
		q.waiting[0] = nil // or the slice would keep it while the queue is idle
		q.waiting = q.waiting[1:]
		if l.startHandler(d) {
			l.countHandlers(q, 1)
		}
	}
}

// startHandler passes a waiting delivery to an executor, unless its lease is lost. It releases such
// a delivery, which has no effect if another worker holds the message.
func (l *dispatchLoop) startHandler(d *delivery) bool {
	l.mu.Lock()
	lost := d.lost
	if !lost {
		d.ctx, d.cancel = context.WithCancelCause(l.handlerBase)
	}
	l.mu.Unlock()
	if lost {
		l.giveBack([]*delivery{d})
		return false
	}
	if l.handling == l.executors {
		l.executors++
		go l.executor()
	}
	l.begun <- d // the channel has capacity for every handler
	return true
}

// countHandlers counts handlers of a queue that begin, or end.
func (l *dispatchLoop) countHandlers(q *queueRunner, n int) {
	q.handling += n
	l.handling += n
	if q.flush != nil {
		l.batching += n
	}
}

// queuesWithoutWork counts the queues that have messages to claim, but none claimed. A slot is kept
// free for each. Otherwise a busy queue would fill every slot as soon as it becomes free.
func (l *dispatchLoop) queuesWithoutWork() int {
	n := 0
	for _, q := range l.queues {
		if q.flush == nil && q.mayHaveMessages && !l.draining && q.claims() && len(q.waiting) == 0 && q.handling == 0 {
			n++
		}
	}
	return n
}

// nextQueue returns the first queue after last for which wants is true, or nil. It sets last.
func (l *dispatchLoop) nextQueue(last *int, wants func(*queueRunner) bool) *queueRunner {
	for i := range l.queues {
		n := (*last + 1 + i) % len(l.queues)
		if wants(l.queues[n]) {
			*last = n
			return l.queues[n]
		}
	}
	return nil
}

// startQueries starts a due poll, a due rescan and a claim, at most one of each at a time.
func (l *dispatchLoop) startQueries() {
	if l.draining {
		return
	}
	if l.pollDue && !l.polling {
		l.startPoll()
	}
	if !l.rescanning {
		l.startRescan()
	}
	if !l.claiming {
		l.startClaim()
	}
}

// startPoll polls for the queues that are not known to have messages. A queue whose claims continue
// from a position is claimed from instead, which reads less than a poll would.
func (l *dispatchLoop) startPoll() {
	l.pollDue = false
	for _, q := range l.queues {
		q.mayHaveMessages = q.mayHaveMessages || q.cursor.isSet()
	}
	ids := l.idleWorkers()
	if len(ids) == 0 {
		l.schedulePoll()
		return
	}
	l.polling = true
	a := &pollAnswer{workers: ids, err: foreign.ErrGoexit}
	go l.query(a, func() { l.poll(a) })
}

// startRescan looks for messages that the claims of a queue have skipped, if a rescan is due.
func (l *dispatchLoop) startRescan() {
	q := l.nextQueue(&l.lastRescanned, func(q *queueRunner) bool { return !q.suspended && !q.stopped && q.cursor.rescanDue() })
	if q == nil {
		return
	}
	l.rescanning = true
	a := &rescanAnswer{queue: q, to: q.cursor.rescanEnd(), err: foreign.ErrGoexit}
	go l.query(a, func() { l.rescan(a) })
}

// startClaim claims for the next queue that wants messages.
func (l *dispatchLoop) startClaim() {
	var n int
	var withSuspects bool
	q := l.nextQueue(&l.lastClaimed, func(q *queueRunner) bool {
		n, withSuspects = l.claimSize(q)
		return n > 0
	})
	if q == nil {
		return
	}
	l.claiming = true
	from, n := q.cursor.next(n)
	a := &claimAnswer{queue: q, asked: n, withSuspects: withSuspects, from: from, pollSawDue: q.pollSawDue, err: foreign.ErrGoexit}
	q.enqueuedSince, q.pollSawDue = false, false
	q.capacityFreed.Store(false)
	go l.query(a, func() {
		l.claim(a)
		for _, d := range a.ms {
			l.store.observeClaim(l.handlerBase, d.m)
		}
	})
}

// A queryAnswer is the answer of a query of the dispatch loop: a *pollAnswer, a *claimAnswer or a
// *rescanAnswer.
type queryAnswer interface{ apply(l *dispatchLoop) }

// A pollAnswer has the workers that have due messages.
type pollAnswer struct {
	workers []int64
	due     map[int64]bool // by worker
	stuck   bool           // the poll failed while the database answered other statements
	err     error
}

// A claimAnswer holds claimed messages.
type claimAnswer struct {
	queue        *queueRunner
	asked        int      // how many messages
	withSuspects bool     // a message whose lease expired could be claimed
	pollSawDue   bool     // a poll had seen a due message
	from         position // the claim began after it
	ms           []*delivery
	capacity     capacity // by the limits of the queue
	refused      bool     // the database, or its driver, cannot run the claim
	timedOut     bool
	elapsed      time.Duration
	took         time.Duration // by a claim from the beginning, without limits
	// stuck means that a claim from the beginning failed while the database answered other
	// statements.
	stuck bool
	err   error
}

// A rescanAnswer holds the positions of messages that claims have skipped.
type rescanAnswer struct {
	queue   *queueRunner
	to      position // the end of the rescan
	skipped []position
	took    time.Duration
	err     error
}

// query runs fn, which fills in an answer, and sends the answer to the dispatch loop. It sends the
// answer even if an Observer ends the goroutine.
func (r *runner) query(a queryAnswer, fn func()) {
	defer func() {
		r.answers <- a // the channel has capacity for one of each kind
		r.wake()
	}()
	fn()
}

// claims reports whether the queue may be claimed from at all.
func (q *queueRunner) claims() bool { return !q.throttle.closed && !q.suspended && !q.stopped }

// claimSize returns how many messages to claim for a queue, and whether suspects may be among them.
// A suspect may crash the process, and must go straight into a free slot.
func (l *dispatchLoop) claimSize(q *queueRunner) (n int, withSuspects bool) {
	if !q.mayHaveMessages || !q.claims() || !l.completer.keepsUp(q) {
		return 0, false
	}
	free := l.freeSlots(q)
	withSuspects = free > 0 && len(q.waiting) == 0
	if q.needsSlot && !withSuspects {
		return 0, false
	}
	prefetch := 0
	if q.averageTime > 0 && !q.limited.Load() {
		byTime := int(float64(q.limit) * float64(prefetchTime) / float64(q.averageTime))
		prefetch = min(maxPrefetch, maxPrefetchSize/max(1, q.averageSize), byTime)
	}
	if len(q.waiting) > max(free, prefetch/2) {
		return 0, false // a later claim gets a larger batch
	}
	n = min(maxClaim, claimable(free+prefetch-len(q.waiting), q.averageSize))
	if q.claimBound > 0 {
		n = min(n, q.claimBound)
	}
	return n, withSuspects
}

// boundClaims bounds the next claims of a queue after a claim that was slow because its messages
// are large. The other queues of the worker wait for a slow claim. Each quick claim doubles the
// bound.
func (q *queueDispatch) boundClaims(a *claimAnswer) {
	switch {
	case a.timedOut:
		q.claimBound = 1
	case a.err == nil && a.elapsed >= slowLargeClaim && totalSize(a.ms) >= fullClaimSize:
		q.claimBound = max(1, len(a.ms)/2)
	case a.err == nil && q.claimBound > 0:
		q.claimBound *= 2
		if q.claimBound >= maxClaim {
			q.claimBound = 0
		}
	}
}

// freeSlots returns how many handlers of a queue could be started.
func (l *dispatchLoop) freeSlots(q *queueRunner) int {
	free := q.limit - q.handling
	if q.flush == nil {
		free = min(free, l.Concurrency-l.handling+l.batching)
	}
	return free
}

// apply implements [queryAnswer].
func (a *pollAnswer) apply(l *dispatchLoop) {
	l.polling = false
	if a.err != nil {
		l.queryFailed()
		for _, q := range l.queues {
			q.mayHaveMessages = q.mayHaveMessages || a.stuck // a claim can skip the dead rows
		}
		l.logFailedQuery(a.err)
		return
	}
	l.querySucceeded()
	for _, q := range l.queues {
		due := a.due[q.worker.Load()]
		q.pollSawDue = q.pollSawDue || due && !q.mayHaveMessages
		// Messages of a claim whose outcome is unknown do not show as due.
		q.mayHaveMessages = q.mayHaveMessages || due || q.claimUnknown.Load()
	}
	l.schedulePoll()
}

// apply implements [queryAnswer].
func (a *claimAnswer) apply(l *dispatchLoop) {
	l.claiming = false
	q := a.queue
	q.boundClaims(a)
	if a.err != nil {
		q.mayHaveMessages = false
		q.cursor.claimFailed(a)
		if a.refused {
			l.claimRefused(q)
		} else {
			l.queryFailed()
		}
		l.logFailedQuery(a.err)
		return
	}
	l.querySucceeded()
	q.refusals = 0
	l.claimed(a)
	// A message that was enqueued since the claim began may have come too late for it. Without a
	// slot for it the next poll is soon enough.
	q.mayHaveMessages = q.mayHaveMessages || q.enqueuedSince && l.freeSlots(q) > len(q.waiting)
}

// apply implements [queryAnswer].
func (a *rescanAnswer) apply(l *dispatchLoop) {
	l.rescanning = false
	if a.queue.cursor.rescanned(a) {
		a.queue.mayHaveMessages, a.queue.enqueuedSince = true, true
	}
	if a.err != nil {
		l.logFailedQuery(a.err)
	}
}

// queryFailed polls again after a time that grows with each failure.
func (l *dispatchLoop) queryFailed() {
	pollAgain := l.takePollAgain()
	l.failedQueries++
	l.setPoll(min(l.PollInterval<<min(l.failedQueries-1, 10), max(l.PollInterval, maxFailurePoll)))
	if pollAgain {
		l.pollFast()
	}
}

// logFailedQuery logs why a query failed, unless the drain or an Observer ended it.
func (l *dispatchLoop) logFailedQuery(err error) {
	drained := l.maintenanceReads.Err() != nil && errors.Is(err, context.Canceled)
	if !drained && !errors.Is(err, foreign.ErrGoexit) {
		l.log.Warn("pgqrs: could not look for messages; trying again", "err", err)
	}
}

// claimRefused claims from a queue again after a time that grows with each refusal. The database
// may be unable to return a message, for example. Other queues do not wait for that.
func (l *dispatchLoop) claimRefused(q *queueRunner) {
	l.takePollAgain()
	wait := l.PollInterval << min(q.refusals, 10)
	q.refusals++
	l.throttle(q, capacity{limited: true, wait: max(wait, time.Millisecond)})
}

func (l *dispatchLoop) querySucceeded() {
	l.takePollAgain()
	l.failedQueries = 0
}

// takePollAgain returns and resets pollAgain, which is valid only while a query is in progress.
func (l *dispatchLoop) takePollAgain() bool {
	pollAgain := l.pollAgain
	l.pollAgain = pollAgain && (l.polling || l.claiming)
	return pollAgain
}

// claimed takes the messages of a claim, and decides when to claim from the queue again.
func (l *dispatchLoop) claimed(a *claimAnswer) {
	q := a.queue
	q.cursor.claimed(a, l.store.dialect.claimsFromPosition)
	switch n := len(a.ms); {
	case a.capacity.closed():
		l.throttle(q, a.capacity)
	case n == 0 && !a.withSuspects && a.pollSawDue && a.from.isBeginning():
		q.needsSlot = true // a claim from the beginning would have returned what the poll saw
	case n == 0:
		q.mayHaveMessages, q.needsSlot = false, false
		if !a.withSuspects && a.from.isBeginning() {
			l.pollFast() // a poll finds out whether a message waits for a slot
		}
	default:
		q.needsSlot = false
		total := totalSize(a.ms)
		q.averageSize = total / n
		l.lastActive = time.Now()
		if n < a.asked && total < fullClaimSize {
			// The queue is empty, or its next message needs a slot of its own.
			q.mayHaveMessages = false
			l.pollFast()
		}
	}
	if l.draining || q.suspended || q.stopped {
		l.giveBack(a.ms)
		return
	}
	q.waiting = append(q.waiting, a.ms...)
}

// totalSize returns the size of messages in bytes.
func totalSize(ds []*delivery) int {
	total := 0
	for _, d := range ds {
		total += d.m.stored
	}
	return total
}

// claimable bounds a claim of n messages by the size of recent messages. The statement stops at
// claimedBytes by itself, but reads each message that it is asked for.
func claimable(n, size int) int {
	const least = 32
	return min(n, max(least, 2*maxPrefetchSize/max(1, size)))
}

// takeWakeUps handles the wake-ups of queues.
func (l *dispatchLoop) takeWakeUps() {
	for _, q := range l.queues {
		q.endThrottle()
		if q.waker.now.Swap(false) {
			q.mayHaveMessages, q.enqueuedSince = true, true
		}
		if q.waker.fast.Swap(false) {
			l.pollAgain = l.polling || l.claiming // that query may have begun too early
			l.pollFast()
		}
	}
}

// pollFast polls soon, and then less and less often until the interval is back to normal.
func (l *dispatchLoop) pollFast() {
	l.lastActive = time.Now()
	l.fastPoll = 5 * time.Millisecond
	l.setPoll(l.fastPoll)
}

const (
	activeFor      = 30 * time.Second // after the latest message
	idlePoll       = time.Second
	maxFailurePoll = 5 * time.Second // while the database does not answer
)

// schedulePoll sets the time of the next poll.
func (l *dispatchLoop) schedulePoll() {
	d := l.PollInterval
	if l.active {
		l.lastActive, l.active = time.Now(), false
	}
	if idle := time.Since(l.lastActive); idle > activeFor && d < idlePoll {
		d = min(idlePoll, d+time.Duration(float64(idle-activeFor)/10))
	}
	if l.fastPoll > 0 {
		if l.fastPoll *= 2; l.fastPoll >= d {
			l.fastPoll = 0
		} else {
			d = l.fastPoll
		}
	}
	l.setPoll(d)
}

func (l *dispatchLoop) setPoll(d time.Duration) {
	l.nextPoll.set(time.Duration(float64(d) * (0.8 + rand.Float64()*0.4)))
}

// idleWorkers returns the workers of queues that are not known to have messages.
func (l *dispatchLoop) idleWorkers() []int64 {
	var ids []int64
	for _, q := range l.queues {
		if !q.mayHaveMessages && q.claims() {
			ids = append(ids, q.worker.Load())
		}
	}
	return ids
}

// handlerReturned frees the slot of a handler.
func (l *dispatchLoop) handlerReturned(d *delivery) {
	l.active = true
	q := d.queue
	l.countHandlers(q, -1)
	if q.averageTime == 0 {
		q.averageTime = max(1, d.took)
		return
	}
	q.averageTime += (max(1, d.took) - q.averageTime) / 8
}

// applyStatuses applies the statuses of the worker rows.
func (l *dispatchLoop) applyStatuses(statuses map[*queueRunner]WorkerState) {
	for q, status := range statuses {
		wasOff := q.suspended || q.stopped
		q.suspended, q.stopped = status == WorkerSuspended || status == WorkerInterrupted || status == rowTaken, q.stopped || status == WorkerStopped
		nowOff := q.suspended || q.stopped
		if nowOff == wasOff {
			continue
		}
		l.log.Info("pgqrs: the worker's status has changed", "queue", q.queue, "status", status)
		if nowOff {
			l.giveBack(q.waiting)
			q.waiting = nil
		} else {
			q.mayHaveMessages = true
		}
	}
}

// allStopped reports whether all queues were stopped by [Store.StopWorker].
func (l *dispatchLoop) allStopped() bool {
	for _, q := range l.queues {
		if !q.stopped {
			return false
		}
	}
	return len(l.queues) > 0
}
