package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"maragu.dev/goqite"
	"maragu.dev/goqite/jobs"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

func openGoqite(_ context.Context, workload string, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	if workload != "drain" {
		return nil, fmt.Errorf("no workload %q", workload)
	}
	schema, err := goqiteSchema()
	if err != nil {
		return nil, err
	}
	return &measure.Session{
		Round: func(ctx context.Context) (measure.Sample, error) { return goqiteDrain(ctx, spec, fresh, schema) },
		Close: func() error { return nil },
	}, nil
}

// goqiteSchema reads the file that goqite's documentation says to run. The module does not export
// it.
func goqiteSchema() (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "maragu.dev/goqite").Output()
	if err != nil {
		return "", fmt.Errorf("find goqite's schema: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema_sqlite.sql"))
	return string(text), err
}

// goqiteDrain counts the messages that are gone, because goqite deletes finished messages.
func goqiteDrain(ctx context.Context, spec measure.Spec, fresh func() (*database, error), schema string) (measure.Sample, error) {
	db, err := fresh()
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	queue := goqite.New(goqite.NewOpts{DB: db.DB, Name: "bench", Timeout: time.Minute})
	if err := goqiteFill(ctx, db, queue, spec.Backlog); err != nil {
		return nil, err
	}
	var handled atomic.Int64
	all := make(chan struct{})
	runner := jobs.NewRunner(jobs.NewRunnerOpts{Queue: queue, Limit: spec.Goroutines, PollInterval: time.Millisecond, Extend: time.Minute})
	runner.Register("bench", func(_ context.Context, raw []byte) error {
		var job measure.Job
		if err := json.Unmarshal(raw, &job); err != nil {
			return err
		}
		if handled.Add(1) == int64(spec.Backlog) {
			close(all)
		}
		return nil
	})
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	start := time.Now()
	go func() {
		runner.Start(running)
		close(ended)
	}()
	select {
	case <-all:
	case <-time.After(spec.Limit):
	}
	stop()
	<-ended // the runner waits for its jobs, which delete their messages
	took := time.Since(start)
	left, err := db.count(ctx, "SELECT count(*) FROM goqite")
	if err != nil {
		return nil, err
	}
	sample := measure.Throughput(spec.Backlog-left, took)
	if left > 0 {
		sample[measure.Capped] = 1
	}
	return sample, nil
}

// goqiteFill stores the backlog.
func goqiteFill(ctx context.Context, db *database, queue *goqite.Queue, n int) error {
	for left := n; left > 0; left -= 1000 {
		err := db.inTx(ctx, func(tx *sql.Tx) error {
			for _, job := range measure.Jobs(min(left, 1000)) {
				if _, err := jobs.CreateTx(ctx, tx, queue, "bench", goqite.Message{Body: []byte(job.Text())}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.checkpoint(ctx)
}

func (db *database) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}
