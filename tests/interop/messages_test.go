//go:build unix

package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var messagesProofs = []proof{
	{"what Python produces, a Go Worker handles", pythonToGo},
	{"what Go enqueues, Python consumes", goToPython},
	{"a batch of either side is taken by the other, in its order", batches},
	{"a delayed message of either side is hidden from the other until it is due", delayed},
	{"what Go enqueues in a transaction, Python sees when it commits", transaction},
	{"payloads compare equal after either way", payloads},
	{"archived messages and counts are the same on both sides", archived},
	{"a message that one side holds is not given to the other", oneHolder},
	{"what one side releases, the other takes, at the time that was said", released},
	{"four Go consumers and a Python one get each of 300 messages once", together},
	{"a dead letter of Go is an archived message to Python, and a redriven one comes to Python", deadLetters},
	{"a message with five attempts is hidden from Python, and Go makes it a dead letter", overdrawn},
	{"a dead letter that pgqrs replays is handled and acked by Go", replayed},
}

func TestMessages(t *testing.T) { proveShared(t, messagesProofs) }

// makeQueue creates a queue's row in Python, which needs one.
func (p *pair) makeQueue(t *testing.T, name string) {
	t.Helper()
	p.py.run(t, `my.queue = await my.store.queue(name)`, args{"name": name})
}

// A box collects what handlers receive.
type box[T any] struct {
	mu   sync.Mutex
	list []T
}

func (b *box[T]) put(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, v)
}

func (b *box[T]) all() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list)
}

func (b *box[T]) handle(_ context.Context, m *pgqrs.Message[T]) error {
	b.put(m.Payload)
	return nil
}

// stats returns the counts of a queue.
func (p *pair) stats(t *testing.T, queue string) pgqrs.QueueInfo {
	t.Helper()
	list := value(p.store.Queues(t.Context(), queue))(t)
	equal(t, "queues", len(list), 1)
	return list[0]
}

func (p *pair) message(t *testing.T, id int64) pgqrs.MessageInfo {
	t.Helper()
	list := value(p.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}}))(t)
	equal(t, "messages", len(list), 1)
	return list[0]
}

func pythonToGo(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	id := do[int64](t, p.py, `
		producer = await my.store.producer("jobs")
		await pgqrs.produce(my.store, "jobs", {"by": "a worker of the moment"})
		return await producer.enqueue({"by": "a producer"})
	`, nil)
	var got box[map[string]string]
	p.work(t, pgqrs.NewQueue[map[string]string](p.store, "jobs").Handle(got.handle))
	eventually(t, "both are handled and acked", func() bool { return p.stats(t, "jobs").Archived == 2 })
	var by []string
	for _, m := range got.all() {
		by = append(by, m["by"])
	}
	slices.Sort(by) // a Worker handles several at once, in any order
	equal(t, "messages", strings.Join(by, ", "), "a producer, a worker of the moment")
	equal(t, "attempts", p.message(t, id).Attempt, 1)
}

func goToPython(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[map[string]string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), map[string]string{"to": "ada"}))(t)
	got := do[map[string]any](t, p.py, `
		my.consumer = await my.store.consumer("jobs")
		[m] = await my.consumer.dequeue()
		return {"id": m.id, "payload": m.payload, "read_ct": m.read_ct, "producer": m.producer_worker_id, "mine": m.consumer_worker_id == my.consumer.worker_id}
	`, nil)
	want := map[string]any{"id": float64(id), "payload": map[string]any{"to": "ada"}, "read_ct": 1.0, "producer": nil, "mine": true}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("Python gets %v; want %v", got, want)
	}
	equal(t, "state", p.message(t, id).State, pgqrs.Leased)
	equal(t, "archived", do[bool](t, p.py, `return await my.consumer.archive(id)`, args{"id": id}), true)
	m := p.message(t, id)
	equal(t, "state", m.State, pgqrs.Archived)
	equal(t, "worker", m.WorkerID, do[int64](t, p.py, `return my.consumer.worker_id`, nil))
}

func batches(t *testing.T, p *pair) {
	p.makeQueue(t, "from Python")
	ids := do[[]int64](t, p.py, `return await pgqrs.produce_batch(my.store, "from Python", list(range(40)))`, nil)
	q := pgqrs.NewQueue[int](p.store, "from Python")
	for i, m := range value(q.Dequeue(t.Context(), 100, time.Minute))(t) {
		equal(t, "id", m.ID, ids[i])
		equal(t, "payload", m.Payload, i)
		must(t, q.Ack(t.Context(), m))
	}
	equal(t, "acked", p.stats(t, "from Python").Archived, 40)

	numbers := make([]int, 40)
	for i := range numbers {
		numbers[i] = i
	}
	value(pgqrs.NewQueue[int](p.store, "from Go").EnqueueBatch(t.Context(), numbers))(t)
	got := do[[]int](t, p.py, `
		taken = []
		async def take(messages):
			taken.extend(m.payload for m in sorted(messages, key=lambda m: m.id))  # the reference sorts nothing
		await pgqrs.consume_batch(my.store, "from Go", 25, take)
		await pgqrs.consume_batch(my.store, "from Go", 25, take)
		return taken
	`, nil)
	equal(t, "payloads", fmt.Sprint(got), fmt.Sprint(numbers))
	equal(t, "archived", p.stats(t, "from Go").Archived, 40)
}

func delayed(t *testing.T, p *pair) {
	p.makeQueue(t, "from Python")
	late := do[int64](t, p.py, `return await (await my.store.producer("from Python")).enqueue_delayed("late", 3600)`, nil)
	q := pgqrs.NewQueue[string](p.store, "from Python")
	equal(t, "messages before it is due", len(value(q.Dequeue(t.Context(), 10, time.Minute))(t)), 0)
	equal(t, "state", p.message(t, late).State, pgqrs.Scheduled)
	value(pgqrs.NewQueue[string](p.store, "from Go").Enqueue(t.Context(), "late", pgqrs.Delay(time.Hour)))(t)
	p.py.run(t, `
		my.consumer = await my.store.consumer("from Go")
		assert await my.consumer.dequeue() == []
	`, nil)
	pgqrstest.Advance(t, p.store, 61*time.Minute)
	equal(t, "id", value(q.Dequeue(t.Context(), 10, time.Minute))(t)[0].ID, late)
	equal(t, "payload", do[string](t, p.py, `return (await my.consumer.dequeue())[0].payload`, nil), "late")
}

func transaction(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	p.makeQueue(t, "jobs")
	p.py.run(t, `my.consumer = await my.store.consumer("jobs")`, nil)
	tx := value(p.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	value(q.WithTx(tx).Enqueue(t.Context(), "x"))(t)
	// On SQLite Python would wait for the end of the transaction.
	if p.dialect == pgqrs.Postgres {
		p.py.run(t, `assert await my.consumer.dequeue() == []`, nil)
	}
	must(t, tx.Commit())
	equal(t, "payload", do[string](t, p.py, `return (await my.consumer.dequeue())[0].payload`, nil), "x")
}

// payloadTable are payloads in JSON that mean the same in Go, Rust and Python.
var payloadTable = []string{
	`{}`, `[]`, `null`, `true`, `"plain"`, `0`, `-1`, `""`,
	`{"empty": {}, "list": [], "nothing": null, "nested": {"a": [1, {"b": [[], {}]}]}}`,
	`{"text": "naïve 日本語 🦆 \u2028\u2029 <b>&amp;</b> \"quoted\" back\\slash tab\t"}`,
	`{"größe": 1, "a b": 2, "": 3, "<&>": 4}`,
	`[9007199254740993, 9223372036854775807, -9223372036854775808]`,
	`[0.1, 1.5, -2.25, 1e-7, 1e21, 123456789.125, 0.30000000000000004, 3.141592653589793, 2.5e-300, 1e300]`,
	`{"z": 1, "a": 2, "m": {"y": 1, "b": 2}}`,
}

func payloads(t *testing.T, p *pair) {
	p.makeQueue(t, "from Python")
	fromGo := pgqrs.NewQueue[json.RawMessage](p.store, "from Go")
	fromPython := pgqrs.NewQueue[json.RawMessage](p.store, "from Python")
	value(fromGo.Enqueue(t.Context(), json.RawMessage(`"makes the queue"`)))(t)
	p.py.run(t, `
		my.producer = await my.store.producer("from Python")
		my.consumer = await my.store.consumer("from Go")
		await my.consumer.dequeue()
	`, nil)
	for _, text := range payloadTable {
		value(fromGo.Enqueue(t.Context(), json.RawMessage(text)))(t)
		p.py.run(t, `
			[m] = await my.consumer.dequeue()
			want = json.loads(text)
			same = lambda v: json.dumps(v, sort_keys=True)  # which tells 1 from 1.0 and from True
			assert same(m.payload) == same(want), f"got {m.payload!r}, want {want!r}"
			await my.producer.enqueue(want)
		`, args{"text": text})
		var m *pgqrs.Message[json.RawMessage]
		// Python's clock has microseconds, and Go's clock on SQLite milliseconds
		eventually(t, "it is due", func() bool {
			for _, m = range value(fromPython.Dequeue(t.Context(), 1, time.Minute))(t) {
			}
			return m != nil
		})
		if got, want := normal(t, m.Payload), normal(t, []byte(text)); got != want {
			t.Errorf("Go gets %s; want %s", got, want)
		}
	}
}

// normal returns JSON in a normal form: numbers by value, keys in order.
func normal(t *testing.T, raw []byte) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytesReader(raw))
	dec.UseNumber()
	must(t, dec.Decode(&v))
	return fmt.Sprintf("%#v", numbers(t, v))
}

func archived(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[int](p.store, "jobs")
	value(q.EnqueueBatch(t.Context(), []int{0, 1, 2, 3, 4, 5}))(t)
	value(q.Enqueue(t.Context(), 6, pgqrs.Delay(time.Hour)))(t)
	must(t, q.Ack(t.Context(), value(q.Dequeue(t.Context(), 2, time.Minute))(t)...))
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		messages = await my.consumer.dequeue(batch_size=3)
		my.archived = messages[0].id
		await my.consumer.archive(my.archived)
	`, nil)
	s := p.stats(t, "jobs")
	equal(t, "Go's counts", fmt.Sprint(s.Ready, s.Scheduled, s.Leased, s.Archived, s.Dead), "1 1 2 3 0")
	got := do[map[string]any](t, p.py, `
		messages = await my.store.get_messages()
		listed = await messages.list_archived_by_queue(id)
		assert my.archived in [m.id for m in listed]
		return {"unarchived": await messages.count(), "archived": sorted(m.id for m in listed), "workers": sorted({m.consumer_worker_id for m in listed})}
	`, args{"id": s.ID})
	equal(t, "Python's count of unarchived", got["unarchived"], any(float64(s.Ready+s.Scheduled+s.Leased)))
	var mine []int64
	for _, m := range value(p.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "jobs", State: pgqrs.Archived}))(t) {
		mine = append(mine, m.ID)
	}
	slices.Sort(mine)
	equal(t, "Python's archived", fmt.Sprint(got["archived"]), fmt.Sprint(mine))
	equal(t, "workers that archived", len(got["workers"].([]any)), 2)
}

func oneHolder(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	value(q.EnqueueBatch(t.Context(), []string{"a", "b"}))(t)
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		[my.held] = await my.consumer.dequeue()
	`, nil)
	mine := value(q.Dequeue(t.Context(), 10, time.Minute))(t)
	equal(t, "messages that Go gets", len(mine), 1)
	p.py.run(t, `assert await my.consumer.dequeue() == []`, nil)
	equal(t, "messages that Go gets then", len(value(q.Dequeue(t.Context(), 10, time.Minute))(t)), 0)
	p.py.run(t, `
		assert not await my.consumer.archive(id), "archived what Go holds"
		assert not await my.consumer.delete(id), "deleted what Go holds"
		assert not await my.consumer.extend_vt(id, 60), "extended what Go holds"
		assert await my.consumer.release_messages([id]) == 0, "released what Go holds"
	`, args{"id": mine[0].ID})
	must(t, q.Ack(t.Context(), mine...))
	stolen := *mine[0]
	stolen.ID = do[int64](t, p.py, `return my.held.id`, nil)
	wantError(t, q.Ack(t.Context(), &stolen), pgqrs.ErrLeaseLost)
	p.py.run(t, `assert await my.consumer.archive(my.held.id)`, nil)
}

func released(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	value(q.Enqueue(t.Context(), "x"))(t)
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		[my.held] = await my.consumer.dequeue()
		assert await my.consumer.release_messages([my.held.id]) == 1
	`, nil)
	m := value(q.Dequeue(t.Context(), 1, time.Minute))(t)[0]
	equal(t, "attempt, which Python's release does not take back", m.Attempt, 2)
	must(t, q.Release(t.Context(), 0, m))
	p.py.eventually(t, "Python gets it", `
		for m in await my.consumer.dequeue():
			assert m.read_ct == 2, f"read_ct {m.read_ct}"
			return True
		return False
	`, nil)
	p.py.run(t, `
		import datetime
		later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
		assert await my.consumer.release_with_visibility(my.held.id, later.isoformat())
	`, nil)
	equal(t, "state", p.message(t, m.ID).State, pgqrs.Scheduled)
	pgqrstest.Advance(t, p.store, 61*time.Minute)
	m = value(q.Dequeue(t.Context(), 1, time.Minute))(t)[0]
	must(t, q.Release(t.Context(), time.Hour, m))
	p.py.run(t, `assert await my.consumer.dequeue() == []`, nil)
	pgqrstest.Advance(t, p.store, 61*time.Minute)
	equal(t, "payload", do[string](t, p.py, `return (await my.consumer.dequeue())[0].payload`, nil), "x")
}

func together(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[int](p.store, "jobs")
	numbers := make([]int, 300)
	for i := range numbers {
		numbers[i] = i
	}
	value(q.EnqueueBatch(t.Context(), numbers))(t)
	// Each side claims five messages at a time, so that each side gets some.
	var got box[int]
	ahead := value(q.Dequeue(t.Context(), 5, time.Minute))(t)
	must(t, q.Ack(t.Context(), ahead...))
	for _, m := range ahead {
		got.put(m.Payload)
	}
	p.py.run(t, `
		my.got = []
		my.consumer = await my.store.consumer("jobs")
		async def take():
			messages = await my.consumer.dequeue(batch_size=5)
			my.got.extend(m.payload for m in messages)
			assert all(await my.consumer.archive_many([m.id for m in messages]))
			return messages
		async def consume():
			while await take():
				pass
		assert await take()
		my.task = asyncio.create_task(consume())
	`, nil)
	var consumers sync.WaitGroup
	for range 4 {
		consumers.Add(1)
		store := p.newStore(t, pgqrs.Config{})
		go func() {
			defer consumers.Done()
			q := pgqrs.NewQueue[int](store, "jobs")
			for {
				ms, err := q.Dequeue(t.Context(), 5, time.Minute)
				if err == nil {
					err = q.Ack(t.Context(), ms...)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if len(ms) == 0 {
					return
				}
				for _, m := range ms {
					got.put(m.Payload)
				}
			}
		}()
	}
	consumers.Wait()
	python := do[[]int](t, p.py, `await my.task; return my.got`, nil)
	t.Logf("Python got %d, Go %d", len(python), len(got.all()))
	all := slices.Concat(python, got.all())
	slices.Sort(all)
	if !slices.Equal(all, numbers) {
		t.Fatalf("messages: %v; want each of 300 once", all)
	}
	equal(t, "archived", p.stats(t, "jobs").Archived, 300)
}

func deadLetters(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), "x"))(t)
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errors.New("no good")), value(q.Dequeue(t.Context(), 1, time.Minute))(t)...))
	equal(t, "state", p.message(t, id).State, pgqrs.Dead)
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		assert await my.consumer.dequeue() == []
		[m] = await (await my.store.get_messages()).list_archived_by_queue(queue)
		assert m.id == id and m.archived_at
	`, args{"queue": p.stats(t, "jobs").ID, "id": id})
	equal(t, "redriven", value(p.store.Redrive(t.Context(), id))(t), 1)
	p.py.eventually(t, "Python gets it", `
		for m in await my.consumer.dequeue():
			assert m.read_ct == 1, f"read_ct {m.read_ct}"
			return await my.consumer.archive(m.id)
		return False
	`, nil)
	equal(t, "state", p.message(t, id).State, pgqrs.Archived)
}

func overdrawn(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), "x"))(t)
	p.py.run(t, `
		consumer = await my.store.consumer("jobs")
		for _ in range(5):
			[m] = await consumer.dequeue()
			await consumer.release_messages([m.id])
			await asyncio.sleep(0.1)  # its release is as of the database's clock, its dequeue as of its own
		assert await consumer.dequeue() == [], "Python gets it a sixth time"
	`, nil)
	equal(t, "state", p.message(t, id).State, pgqrs.Ready)
	equal(t, "messages for Go", len(value(q.Dequeue(t.Context(), 1, time.Minute))(t)), 0)
	m := p.message(t, id)
	equal(t, "state then", m.State, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 6)
}

func replayed(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), "x"))(t)
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errors.New("no good")), value(q.Dequeue(t.Context(), 1, time.Minute))(t)...))
	// This is the statement of Producer.replay_dlq, which Python has no call for.
	p.exec(t, `UPDATE pgqrs_messages SET archived_at = NULL, read_ct = 0, vt = enqueued_at, consumer_worker_id = NULL, dequeued_at = NULL`)
	m := value(q.Dequeue(t.Context(), 1, time.Minute))(t)
	equal(t, "messages", len(m), 1)
	must(t, q.Ack(t.Context(), m...))
	equal(t, "state", p.message(t, id).State, pgqrs.Archived)
}
