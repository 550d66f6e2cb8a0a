//go:build unix

package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var workflowsProofs = []proof{
	{"Python triggers a workflow that Go runs, and gets its result and steps", triggerPython},
	{"Go starts a workflow that Python runs, and gets its result and steps", startGo},
	{"a run that fails in Go raises in Python with its text", failGo},
	{"a run that fails in Python is a *RunError in Go with its text", failPython},
	{"Go finishes a run whose first step a killed Python process recorded", resumeGo},
	{"Go does not repeat the steps of a run that Python never started", resumeUnstarted},
	{"Python finishes a run whose first step a dead Go worker recorded", resumePython},
	{"a step that failed for now in Go is not ready in Python before its time", retryPython},
	{"a step that failed for now in Python is tried again by Go after its time", retryGo},
	{"a step that failed in Go, and was cleared by Retry, is taken anew by Python", retryCleared},
	{"a step that failed for good on one side has failed on the other", failedSteps},
	{"a run that Python paused, Go goes on with", pausePython},
	{"a finished run that is delivered again is acked by Go", redelivered},
	{"a run of Go goes on when Python has ended its child", childOfPython},
}

func TestWorkflows(t *testing.T) { proveShared(t, workflowsProofs) }

// makeWorkflow creates a definition in Python, which needs one.
func (p *pair) makeWorkflow(t *testing.T, name string) {
	t.Helper()
	p.py.run(t, `await pgqrs.workflow().name(name).store(my.store).create()`, args{"name": name})
}

// trigger triggers the workflow in Python and returns the message's id. The message is in
// my.message.
func (p *pair) trigger(t *testing.T, name string, input any) int64 {
	t.Helper()
	return do[int64](t, p.py, `
		my.message = await pgqrs.workflow().name(name).store(my.store).trigger(input).execute()
		return my.message.id
	`, args{"name": name, "input": input})
}

// runOf returns the only run of a workflow, once there is one.
func (p *pair) runOf(t *testing.T, name string) pgqrs.RunInfo {
	t.Helper()
	var found []pgqrs.RunInfo
	eventually(t, "there is a run of "+name, func() bool {
		found = value(p.store.Runs(t.Context(), pgqrs.RunFilter{Workflow: name}))(t)
		return len(found) > 0
	})
	equal(t, "runs", len(found), 1)
	return found[0]
}

func (p *pair) awaitRun(t *testing.T, id int64, status pgqrs.RunState) pgqrs.RunInfo {
	t.Helper()
	var info pgqrs.RunInfo
	eventually(t, "the run is "+string(status), func() bool {
		info = value(p.store.RunHandle(id).Info(t.Context()))(t)
		return info.Status == status
	})
	return info
}

type order struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

type receipt struct {
	Total int      `json:"total"`
	Lines []string `json:"lines"`
}

// takeOrder is a workflow of two steps. The Python workflow below does the same.
func takeOrder(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
	price, err := pgqrs.Step(ctx, run, "price", func(context.Context) (map[string]int, error) {
		return map[string]int{"each": 3}, nil
	})
	if err != nil {
		return receipt{}, err
	}
	total, err := pgqrs.Step(ctx, run, "total", func(context.Context) (int, error) { return price["each"] * o.Count, nil })
	return receipt{total, []string{o.Name, "<b> & 日本"}}, err
}

// pythonOrder defines takeOrder in Python, as my.take_order.
const pythonOrder = `
	my.ran = []
	@step
	async def price(run):
		my.ran.append("price")
		return {"each": 3}
	@step
	async def total(run, each, count):
		my.ran.append("total")
		return each * count
	@workflow(name="order")
	async def take_order(run, order):
		p = await price(run)
		t = await total(run, p["each"], order["count"])
		return {"total": t, "lines": [order["name"], "<b> & 日本"]}
	my.take_order = take_order
`

const pollOrder = `
	async def poll():
		await pgqrs.dequeue().worker(await my.store.consumer("order")).poll_interval(20).handle_workflow(my.take_order).poll(my.store)
	my.task = asyncio.create_task(poll())
`

func triggerPython(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink 🦆", 7})
	p.work(t, pgqrs.NewWorkflow[order, receipt](p.store, "order").Handle(takeOrder))
	p.py.run(t, `
		result = await pgqrs.run().message(my.message).store(my.store).result()
		assert result == {"total": 21, "lines": ["ink 🦆", "<b> & 日本"]}, result
		[run] = await (await my.store.get_workflow_runs()).list()
		assert run.status == pgqrs.WorkflowStatus.Success and run.output == result, run.status
		assert run.input == {"input": {"name": "ink 🦆", "count": 7}}, run.input
		steps = await (await my.store.get_workflow_steps()).list()
		got = {s.step_name: (s.status, s.output, s.run_id) for s in steps}
		done = pgqrs.WorkflowStatus.Success
		assert got == {"price": (done, {"each": 3}, run.id), "total": (done, 21, run.id)}, got
	`, nil)
	equal(t, "message", p.message(t, p.runOf(t, "order").MessageID).State, pgqrs.Archived)
}

func startGo(t *testing.T, p *pair) {
	p.py.run(t, pythonOrder, nil)
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	run := value(w.Start(t.Context(), order{"ink 🦆", 7}, pgqrs.Key("o1")))(t)
	p.py.run(t, pollOrder, nil)
	got := value(run.Result(soon(t)))(t)
	equal(t, "result", fmt.Sprint(got), fmt.Sprint(receipt{21, []string{"ink 🦆", "<b> & 日本"}}))
	var steps []string
	for _, s := range value(run.Steps(t.Context()))(t) {
		steps = append(steps, fmt.Sprintf("%s %s %s", s.Name, s.Status, strings.ReplaceAll(string(s.Output), " ", "")))
	}
	equal(t, "steps", fmt.Sprint(steps), `[price SUCCESS {"each":3} total SUCCESS 21]`)
	info := value(run.Info(t.Context()))(t)
	eventually(t, "Python archives the message", func() bool { return p.message(t, info.MessageID).State == pgqrs.Archived })
	again := value(w.Start(t.Context(), order{"other", 1}, pgqrs.Key("o1")))(t)
	equal(t, "run of the same key", again.ID(), run.ID())
}

func failGo(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.work(t, pgqrs.NewWorkflow[order, receipt](p.store, "order").Handle(func(context.Context, *pgqrs.Run, order) (receipt, error) {
		return receipt{}, errors.New(`out of "ink"`)
	}))
	p.py.fails(t, `await pgqrs.run().message(my.message).store(my.store).result()`, nil, "PgqrsError", `out of \"ink\"`)
	p.py.run(t, `
		[run] = await (await my.store.get_workflow_runs()).list()
		assert run.status == pgqrs.WorkflowStatus.Error and run.error == 'out of "ink"', run.error
	`, nil)
}

func failPython(t *testing.T, p *pair) {
	run := value(pgqrs.NewWorkflow[order, receipt](p.store, "order").Start(t.Context(), order{"ink", 7}))(t)
	p.py.run(t, `
		@workflow(name="order")
		async def take_order(run, order):
			raise ValueError(f'out of "{order["name"]}"')
		my.take_order = take_order
	`, nil)
	p.py.run(t, pollOrder, nil)
	_, err := run.Result(soon(t))
	var failed *pgqrs.RunError
	if !errors.As(err, &failed) {
		t.Fatalf("error is %v; want a *RunError", err)
	}
	equal(t, "text", failed.Err.Error(), `out of "ink"`)
}

func resumeGo(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, pythonOrder, nil)
	p.py.run(t, `
		my.consumer = await my.store.consumer("order")
		[m] = await my.consumer.dequeue()
		run = await pgqrs.run().message(m).store(my.store).execute()
		await run.start()
		await (await run.acquire_step("price")).guard.success({"each": 5})
		await run.acquire_step("total")  # and never answers
	`, nil)
	p.py.kill()
	run := p.runOf(t, "order")
	equal(t, "status", run.Status, pgqrs.Running)
	pgqrstest.Advance(t, p.store, time.Minute)
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	p.work(t, w.Handle(takeOrder))
	equal(t, "total, by Python's price", value(w.RunHandle(run.ID).Result(soon(t)))(t).Total, 35)
	p.py = p.python(t)
	p.py.run(t, `
		[run] = await (await my.store.get_workflow_runs()).list()
		assert run.output["total"] == 35
		assert sorted(s.step_name for s in await (await my.store.get_workflow_steps()).list()) == ["price", "total"]
	`, nil)
}

func resumeUnstarted(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, `
		[m] = await (await my.store.consumer("order")).dequeue()
		run = await pgqrs.run().message(m).store(my.store).execute()
		await (await run.acquire_step("price")).guard.success({"each": 5})
	`, nil)
	p.py.kill()
	pgqrstest.Advance(t, p.store, time.Minute)
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	var called box[string]
	p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		price, err := pgqrs.Step(ctx, run, "price", func(context.Context) (map[string]int, error) {
			called.put("price")
			return map[string]int{"each": 3}, nil
		})
		return receipt{Total: price["each"] * o.Count}, err
	}))
	equal(t, "total", value(w.RunHandle(p.runOf(t, "order").ID).Result(soon(t)))(t).Total, 35)
	equal(t, "calls of the step", len(called.all()), 0)
}

func resumePython(t *testing.T, p *pair) {
	run := value(pgqrs.NewWorkflow[order, receipt](p.store, "order").Start(t.Context(), order{"ink", 7}))(t)
	p.killInSecondStep(t)
	info := value(run.Info(t.Context()))(t)
	equal(t, "status", info.Status, pgqrs.Running)
	equal(t, "state of its message", p.message(t, info.MessageID).State, pgqrs.Leased)
	pgqrstest.Advance(t, p.store, 2*time.Minute)
	// Go's maintenance releases the message to Python.
	p.work(t, pgqrs.NewQueue[string](p.store, "maintenance").Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	eventually(t, "the message has no owner", func() bool { return p.message(t, info.MessageID).WorkerID == 0 })
	p.py.run(t, pythonOrder, nil)
	p.py.run(t, pollOrder, nil)
	equal(t, "total, by Go's price", value(run.Result(soon(t)))(t).Total, 35)
	equal(t, "steps that Python ran", do[string](t, p.py, `return " ".join(my.ran)`, nil), "total")
}

// openRun dequeues a message as my.held, opens its run and starts the run as my.run.
const openRun = `
	my.consumer = await my.store.consumer("order")
	[my.held] = await my.consumer.dequeue()
	my.run = await pgqrs.run().message(my.held).store(my.store).execute()
	await my.run.start()
`

// finishPrice makes Python, which has opened the run, execute its step "price" and end the run.
func (p *pair) finishPrice(t *testing.T, run *pgqrs.RunHandle[receipt]) {
	t.Helper()
	p.py.run(t, `
		step = await my.run.acquire_step("price")
		assert step.status == pgqrs.StepResultStatus.Execute
		await step.guard.success({"total": 1, "lines": []})
		await my.run.complete({"total": 1, "lines": []})
	`, nil)
	equal(t, "total", value(run.Result(soon(t)))(t).Total, 1)
}

func retryPython(t *testing.T, p *pair) {
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	run := value(w.Start(t.Context(), order{"ink", 7}))(t)
	stop := p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		return pgqrs.Step(ctx, run, "price", func(context.Context) (receipt, error) {
			return receipt{}, pgqrs.RetryAfter(10*time.Minute, errors.New("busy"))
		})
	}))
	eventually(t, "the step has failed", func() bool {
		steps := value(run.Steps(t.Context()))(t)
		return len(steps) == 1 && steps[0].RetryIn > 0
	})
	stop()
	info := value(run.Info(t.Context()))(t)
	eventually(t, "the message is put off", func() bool { return p.message(t, info.MessageID).State == pgqrs.Scheduled })
	p.py.run(t, `
		[s] = await (await my.store.get_workflow_steps()).list()
		assert s.status == pgqrs.WorkflowStatus.Error and s.retry_at, s.status
		assert s.error["is_transient"] and s.error["message"] == "busy", s.error
		assert await (await my.store.consumer("order")).dequeue() == []
	`, nil)
	pgqrstest.Advance(t, p.store, 5*time.Minute)
	p.exec(t, `UPDATE pgqrs_messages SET vt = enqueued_at`) // before the wait is over
	p.py.run(t, openRun, nil)
	p.py.fails(t, `await my.run.acquire_step("price")`, nil, "StepNotReadyError", "")
	pgqrstest.Advance(t, p.store, 6*time.Minute)
	p.finishPrice(t, run)
}

func retryCleared(t *testing.T, p *pair) {
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	run := value(w.Start(t.Context(), order{"ink", 7}))(t)
	stop := p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		return pgqrs.Step(ctx, run, "price", func(context.Context) (receipt, error) {
			return receipt{}, pgqrs.Permanent(errors.New("no such thing"))
		})
	}))
	p.awaitRun(t, run.ID(), pgqrs.Failed)
	stop()
	if err := run.Retry(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.py.run(t, `
		[s] = await (await my.store.get_workflow_steps()).list()
		assert s.status == pgqrs.WorkflowStatus.Queued and s.error is None, (s.status, s.error)
	`, nil)
	p.py.run(t, openRun, nil)
	p.finishPrice(t, run)
}

func retryGo(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, openRun, nil)
	p.py.run(t, `
		await (await my.run.acquire_step("price")).guard.fail_transient("TIMEOUT", "busy", 600.0)
		assert await my.consumer.release_messages([my.held.id]) == 1
	`, nil)
	run := p.store.RunHandle(p.runOf(t, "order").ID)
	steps := value(run.Steps(t.Context()))(t)
	equal(t, "steps", len(steps), 1)
	equal(t, "error", steps[0].Error, "busy")
	equal(t, "whether a retry is to come", steps[0].RetryIn > 9*time.Minute, true)
	var called box[string]
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		return pgqrs.Step(ctx, run, "price", func(context.Context) (receipt, error) {
			called.put("price")
			return receipt{Total: 9}, nil
		})
	}))
	eventually(t, "Go puts the message off until then", func() bool {
		info := value(run.Info(t.Context()))(t)
		return p.message(t, info.MessageID).State == pgqrs.Scheduled && time.Until(info.DueAt) > 5*time.Minute
	})
	equal(t, "calls of the step", len(called.all()), 0)
	pgqrstest.Advance(t, p.store, 11*time.Minute)
	equal(t, "total", value(w.RunHandle(run.ID()).Result(soon(t)))(t).Total, 9)
}

func failedSteps(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, openRun, nil)
	p.py.run(t, `
		await (await my.run.acquire_step("price")).guard.fail("no price")
		assert await my.consumer.release_messages([my.held.id]) == 1
	`, nil)
	var seen box[error]
	stop := p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		out, err := pgqrs.Step(ctx, run, "price", func(context.Context) (receipt, error) { return receipt{Total: 1}, nil })
		seen.put(err)
		return out, err
	}))
	_, err := w.RunHandle(p.runOf(t, "order").ID).Result(soon(t))
	var failed *pgqrs.RunError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "no price") {
		t.Fatalf("result is %v; want a *RunError with Python's text", err)
	}
	if !errors.As(seen.all()[0], &failed) || failed.Step != "price" || !errors.Is(seen.all()[0], pgqrs.ErrPermanent) {
		t.Fatalf("the step returns %v; want a *RunError of it that matches ErrPermanent", seen.all()[0])
	}
	stop()

	other := value(w.Start(t.Context(), order{"pen", 1}))(t)
	stop = p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		_, err := pgqrs.Step(ctx, run, "price", func(context.Context) (receipt, error) {
			return receipt{}, pgqrs.Permanent(errors.New("out of pens"))
		})
		if err == nil {
			return receipt{}, errors.New("the step did not fail")
		}
		return receipt{}, run.Sleep(ctx, "think", time.Hour)
	}))
	info := value(other.Info(t.Context()))(t)
	eventually(t, "the run sleeps", func() bool { return p.message(t, info.MessageID).State == pgqrs.Scheduled })
	stop()
	p.exec(t, `UPDATE pgqrs_messages SET vt = enqueued_at WHERE archived_at IS NULL`)
	p.py.run(t, openRun, nil)
	p.py.fails(t, `await my.run.acquire_step("price")`, nil, "RetriesExhaustedError", "out of pens")
}

func pausePython(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, openRun, nil)
	p.py.run(t, `
		await (await my.run.acquire_step("price")).guard.success({"each": 5})
		await my.run.pause("waiting for approval", 60)
		assert await my.consumer.release_messages([my.held.id]) == 1
	`, nil)
	run := p.runOf(t, "order")
	equal(t, "status", run.Status, pgqrs.Paused)
	equal(t, "why", run.Error, "waiting for approval")
	w := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	p.work(t, w.Handle(takeOrder))
	equal(t, "total", value(w.RunHandle(run.ID).Result(soon(t)))(t).Total, 35)
	info := value(p.store.RunHandle(run.ID).Info(t.Context()))(t)
	equal(t, "error of the finished run", info.Error, "")
}

func redelivered(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	p.py.run(t, openRun, nil)
	// The process dies before it archives the message.
	p.py.run(t, `await my.run.complete({"total": 1, "lines": []})`, nil)
	p.py.kill()
	pgqrstest.Advance(t, p.store, time.Minute)
	run := p.runOf(t, "order")
	var called box[order]
	w := pgqrs.NewWorkflow[order, json.RawMessage](p.store, "order")
	p.work(t, w.Handle(func(_ context.Context, _ *pgqrs.Run, o order) (json.RawMessage, error) {
		called.put(o)
		return nil, nil
	}))
	eventually(t, "Go acks it", func() bool { return p.message(t, run.MessageID).State == pgqrs.Archived })
	equal(t, "calls", len(called.all()), 0)
}

func childOfPython(t *testing.T, p *pair) {
	child := pgqrs.NewWorkflow[order, receipt](p.store, "order")
	w := pgqrs.NewWorkflow[int, int](p.store, "parent")
	parent := w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		out, err := child.Child(ctx, run, "child", order{"ink", n})
		return out.Total, err
	})
	run := value(w.Start(t.Context(), 7))(t)
	stop := p.work(t, parent)
	ended := p.runOf(t, "order").ID
	stop()
	p.py.run(t, pythonOrder, nil)
	p.py.run(t, pollOrder, nil)
	p.awaitRun(t, ended, pgqrs.Succeeded)
	p.work(t, parent) // its maintenance, at the start and then once a minute, wakes the parent
	equal(t, "result", value(run.Result(soon(t)))(t), 21)
}
