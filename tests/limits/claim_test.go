// Package limits_test measures the cost of limits for claims.
package limits_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

const pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"

// BenchmarkClaim measures claims of ten messages without a limit and with each kind of limit. They
// take turns, so that other load on the machine affects all of them. It reports medians.
func BenchmarkClaim(b *testing.B) {
	for name, open := range map[string]func() (driver, dsn string, d pgqrs.Dialect){
		"postgres": func() (string, string, pgqrs.Dialect) {
			return "postgres", postgres.Schema(b, "postgres"), pgqrs.Postgres
		},
		"sqlite": func() (string, string, pgqrs.Dialect) { return "sqlite3", sqlite.URI(b, pragmas), pgqrs.SQLite },
	} {
		b.Run(name, func(b *testing.B) {
			driver, dsn, d := open()
			db, err := sql.Open(driver, dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			store := pgqrs.New(db, d)
			defer store.Close()
			if err := store.Install(b.Context()); err != nil {
				b.Fatal(err)
			}
			timeClaims(b, store)
		})
	}
}

func timeClaims(b *testing.B, store *pgqrs.Store) {
	far := pgqrs.Rate{N: 1_000_000_000, Per: 1000 * time.Hour}
	names := []string{"off", "held", "rate", "both"}
	queues := map[string]*pgqrs.Queue[int]{}
	for name, p := range map[string]pgqrs.Policy{"off": {}, "held": {MaxLeased: 1_000_000}, "rate": {Rate: far}, "both": {MaxLeased: 1_000_000, Rate: far}} {
		queues[name] = pgqrs.NewQueue[int](store, name).With(p)
		if err := queues[name].Configure(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, name := range names {
			d, err := timeClaim(b.Context(), queues[name])
			if err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], d)
		}
	}
	for _, name := range names {
		slices.Sort(took[name])
		b.ReportMetric(float64(took[name][len(took[name])/2].Microseconds()), name+"-µs")
	}
}

// timeClaim returns how long a claim of ten messages takes.
func timeClaim(ctx context.Context, q *pgqrs.Queue[int]) (time.Duration, error) {
	if _, err := q.EnqueueBatch(ctx, make([]int, 10)); err != nil {
		return 0, err
	}
	began := time.Now()
	ms, err := q.Dequeue(ctx, 10, time.Minute)
	took := time.Since(began)
	if err == nil && len(ms) != 10 {
		err = fmt.Errorf("dequeued %d messages", len(ms))
	}
	return took, errors.Join(err, q.Ack(ctx, ms...))
}
