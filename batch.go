package pgqrs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxBatch is how many messages a batch may have.
const maxBatch = 1000

// HandleBatch returns a handler that calls fn with up to size messages at once:
// when that many are in hand, or when the first of them has been in hand for
// age. Zero age does not wait for company: a batch is what has come while the one before was handled.
//
// The messages of a batch are in the order of their delivery. If fn returns nil, all messages are acked. If it returns a [BatchError],
// those that it names fail, and the others are acked. Any other error, or a
// panic, is the failure of each; see [WorkFunc] for what becomes of it. So that
// one of them cannot take the others down with it again, a message that has been
// delivered before is handled alone. Messages that fn settled itself, by Ack and its like,
// are left at that, and those whose payload does not decode into T go to the dead letters.
//
// Policy.Concurrency is how many batches are handled at a time; zero means one.
// Messages in batches do not count against Worker.Concurrency.
// Policy.Timeout includes the wait for a batch, and must be longer than age. fn's
// ctx has the values of the first message's, and ends when those of all have; a message whose
// lease is lost alone does not end it. Middleware is called for each
// message. A Worker that drains waits for no more messages, but begins what it has.
func (q *Queue[T]) HandleBatch(fn func(ctx context.Context, ms []*Message[T]) error, size int, age time.Duration) Handler {
	h := q.handler(fn == nil)
	if h.err == nil {
		if err := q.checkBatch(size, age); err != nil {
			h.err = &operationError{fmt.Sprintf("batch handler of queue %q", q.name), err}
		}
	}
	fresh := func() *batcher[T] {
		return &batcher[T]{cfg: &q.store.cfg, fn: fn, size: size, age: age, most: max(1, q.policy.Concurrency)}
	}
	h.batch = func() batching {
		b := fresh()
		return batching{b.work, b.flush, b.size * b.most}
	}
	h.work = func(ctx context.Context, m *MessageInfo) error { // by itself, outside a Worker
		b := fresh()
		b.flush()
		return b.work(ctx, m)
	}
	return h
}

func (q *Queue[T]) checkBatch(size int, age time.Duration) error {
	switch timeout := q.policy.Timeout; {
	case size < 1 || size > maxBatch:
		return fmt.Errorf("size %d is not between 1 and %d", size, maxBatch)
	case age < 0:
		return fmt.Errorf("negative age %v", age)
	case timeout > 0 && timeout <= age:
		return fmt.Errorf("Policy.Timeout %v is not longer than the age %v, for which messages wait", timeout, age)
	}
	return nil
}

// A BatchError says which messages of a batch failed, by their ids, and why; the others are
// done. An entry of nil is none. If it names an id that is not in the batch, the whole batch fails.
type BatchError map[int64]error

// Error names the messages that failed.
func (e BatchError) Error() string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(e)) {
		if e[id] != nil {
			list = append(list, fmt.Sprintf("message %d: %s", id, unprefixed(e[id])))
		}
	}
	return fmt.Sprintf("pgqrs: %d messages of a batch failed: %s", len(list), strings.Join(list, "; "))
}

// Unwrap returns the errors of the messages.
func (e BatchError) Unwrap() []error {
	var list []error
	for _, id := range slices.Sorted(maps.Keys(e)) {
		if e[id] != nil {
			list = append(list, e[id])
		}
	}
	return list
}

// A batching is how a Worker calls a batch handler: once for each message, in goroutines of their own.
type batching struct {
	work  WorkFunc
	flush func() // has what is waiting begun, and all that comes after it
	limit int    // messages in hand
}

// A batcher gathers the messages of one Worker and queue. Each waits in a call
// of work, which returns what became of it.
type batcher[T any] struct {
	cfg  *Config
	fn   func(context.Context, []*Message[T]) error
	size int
	age  time.Duration
	most int // batches at a time

	mu      sync.Mutex
	waiting []*batched[T] // for company
	alone   []*batched[T] // for their turn, delivered before
	running int
	flushed bool
	ripe    *time.Timer
}

// A batched is a message in a batcher.
type batched[T any] struct {
	ctx    context.Context
	m      *Message[T]
	since  time.Time
	result chan error // holds one
}

// work handles a message together with others.
func (b *batcher[T]) work(ctx context.Context, info *MessageInfo) error {
	m, err := newMessage[T](b.cfg, info)
	if err != nil {
		return err
	}
	e := &batched[T]{ctx, m, time.Now(), make(chan error, 1)}
	b.mu.Lock()
	if m.Attempt > 1 {
		b.alone = append(b.alone, e)
	} else {
		b.waiting = append(b.waiting, e)
	}
	b.begin()
	b.mu.Unlock()
	select {
	case err := <-e.result:
		return err
	case <-ctx.Done():
	}
	if b.withdraw(e) {
		return context.Cause(ctx)
	}
	return <-e.result
}

// withdraw takes back a message that still waits.
func (b *batcher[T]) withdraw(e *batched[T]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range []*[]*batched[T]{&b.waiting, &b.alone} {
		if i := slices.Index(*list, e); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
	}
	return false
}

// flush waits for no more company.
func (b *batcher[T]) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushed = true
	b.begin()
}

// begin starts what may be started, and sets the time to look again. The caller holds b.mu.
func (b *batcher[T]) begin() {
	for b.running < b.most {
		batch := b.next()
		if len(batch) == 0 {
			break
		}
		b.running++
		go b.run(batch)
	}
	if b.ripe != nil {
		b.ripe.Stop()
		b.ripe = nil
	}
	if b.running < b.most && len(b.waiting) > 0 {
		b.ripe = time.AfterFunc(b.age-time.Since(b.waiting[0].since), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.begin()
		})
	}
}

// next takes out the batch to start, if there is one. The caller holds b.mu.
func (b *batcher[T]) next() (batch []*batched[T]) {
	if len(b.alone) > 0 {
		batch, b.alone = b.alone[:1:1], b.alone[1:]
		return batch
	}
	n := min(len(b.waiting), b.size)
	if n < b.size && !b.flushed && (n == 0 || time.Since(b.waiting[0].since) < b.age) {
		return nil
	}
	batch, b.waiting = b.waiting[:n:n], b.waiting[n:]
	return batch
}

// run calls fn with a batch and hands each message its result. The deferred
// part runs whatever fn does, runtime.Goexit included.
func (b *batcher[T]) run(batch []*batched[T]) {
	err := errGoexit
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
		results := resultsOf(err, batch)
		for i, e := range batch {
			e.result <- results[i]
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		b.begin()
	}()
	slices.SortFunc(batch, func(a, b *batched[T]) int { // their goroutines came in no order
		return cmp.Or(-cmp.Compare(a.m.Priority, b.m.Priority), a.m.DueAt.Compare(b.m.DueAt), cmp.Compare(a.m.ID, b.m.ID))
	})
	ms := make([]*Message[T], len(batch))
	for i, e := range batch {
		ms[i] = e.m
	}
	ctx, cancel := batchContext(batch)
	defer cancel()
	err = foreign(b.fn(ctx, ms))
}

// named makes a BatchError that names strangers an error of the whole batch.
func named[T any](err error, batch []*batched[T]) error {
	var each BatchError
	if !errors.As(err, &each) {
		return err
	}
	for id := range each {
		if !slices.ContainsFunc(batch, func(e *batched[T]) bool { return e.m.ID == id }) {
			return fmt.Errorf("the BatchError names message %d, which is not in the batch: %s", id, unprefixed(err))
		}
	}
	return err
}

// resultsOf is what the error of a batch says of each message. An error that ends the goroutine as
// it is asked ends another than the caller's, which has results to hand on.
func resultsOf[T any](err error, batch []*batched[T]) []error {
	results := make([]error, len(batch))
	if err == nil {
		return results
	}
	bad := contained(func() {
		err = named(err, batch)
		for i, e := range batch {
			results[i] = resultOf(err, e.m.ID)
		}
	})
	if bad != nil {
		for i := range results {
			results[i] = fmt.Errorf("what became of the batch cannot be told: %w", bad)
		}
	}
	return results
}

// resultOf is what the error of a batch says of one message.
func resultOf(err error, id int64) error {
	var each BatchError
	if errors.As(err, &each) {
		return each[id]
	}
	return err
}

// batchContext returns a ctx that ends when those of all messages have.
func batchContext[T any](batch []*batched[T]) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(batch[0].ctx))
	var mu sync.Mutex
	left := len(batch)
	var stops []func() bool
	for _, e := range batch {
		stops = append(stops, context.AfterFunc(e.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel(context.Cause(e.ctx))
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}
