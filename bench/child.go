package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// childVariable is the environment variable with the order of a child process, which runs a part of
// a workload.
const childVariable = "PGQRS_BENCH_CHILD"

// A childOrder names the part.
type childOrder struct {
	Job      string // "enqueue" or "drain"
	Engine   string
	DSN      string
	Messages int
}

// runChild runs a copy of this program and decodes its output.
func runChild(ctx context.Context, order childOrder, into any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the process for %s: %w: %s", order.Job, err, &stderr)
	}
	return json.Unmarshal(out, into)
}

// Child runs the part of a workload that this process was started for, if there is one. A program
// that calls Run must call Child first.
func Child(ctx context.Context) (was bool, err error) {
	text := os.Getenv(childVariable)
	if text == "" {
		return false, nil
	}
	var order childOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return true, err
	}
	e := engineNamed(order.Engine)
	db, err := e.open(order.DSN, e.conns())
	if err != nil {
		return true, err
	}
	l := (&database{DB: db, engine: e, dsn: order.DSN}).library()
	var answer any
	switch order.Job {
	case "enqueue":
		answer, err = l.trickle(ctx, order.Messages)
	case "drain":
		answer, err = l.watchedDrain(ctx, order.Messages)
	default:
		err = fmt.Errorf("no job %q", order.Job)
	}
	if err = errors.Join(err, l.log.err(), l.store.Close(), db.Close()); err != nil {
		return true, err
	}
	return true, json.NewEncoder(os.Stdout).Encode(answer)
}

// trickle enqueues messages at random times, one at a time.
func (l *library) trickle(ctx context.Context, n int) (string, error) {
	for range n {
		measure.Pause(400*time.Millisecond, 900*time.Millisecond)
		if _, err := l.queue.Enqueue(ctx, measure.NewJob(time.Now().UnixNano())); err != nil {
			return "", err
		}
	}
	return "done", nil
}

// watchedDrain handles n messages and samples this process's memory.
func (l *library) watchedDrain(ctx context.Context, n int) (measure.Sample, error) {
	watching, stop := context.WithCancel(ctx)
	watched := make(chan []float64)
	go func() { watched <- watchMemory(watching) }()
	sample, err := l.work(ctx, measure.Spec{Goroutines: 64, Limit: time.Hour}, n)
	stop()
	seen := <-watched
	if err != nil {
		return nil, err
	}
	sample[measure.PeakMiB] = spreadOf(seen).Max
	if q := len(seen) / 4; q > 0 {
		sample["growth"] = spreadOf(seen[3*q:]).Max / spreadOf(seen[q:2*q]).Max
	}
	sample["resident"] = residentPeak()
	return sample, nil
}

// watchMemory returns a sample for every twentieth of a second until ctx is done. A sample is the
// memory in MiB that the Go runtime has from the system and has not given back.
func watchMemory(ctx context.Context) []float64 {
	var seen []float64
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		seen = append(seen, float64(m.Sys-m.HeapReleased)/(1<<20))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return seen
		}
	}
}

// residentPeak returns the maximum memory of this process in MiB, as Linux reports it, or 0
// elsewhere.
func residentPeak() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return 0
	}
	return kib / 1024
}
