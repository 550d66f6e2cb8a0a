package faults_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestPooler(t *testing.T) {
	server := postgres.Private(t)
	var faults []fault
	for _, f := range []struct {
		name, driver, params string
		config               pgqrs.Config
	}{
		{"lib_pq with binary_parameters and NoPrepare", "postgres", " binary_parameters=yes", pgqrs.Config{NoPrepare: true}},
		{"lib_pq with binary_parameters", "postgres", " binary_parameters=yes", pgqrs.Config{}},
		{"pgx without prepared statements", "pgx", " default_query_exec_mode=exec", pgqrs.Config{}},
	} {
		faults = append(faults, fault{f.name, func(t *testing.T, share time.Duration) {
			dsn := postgres.SchemaOn(t, "postgres", server.DSN())
			_, schema, _ := strings.Cut(dsn, "search_path=")
			own := open(t, "postgres", dsn)
			db := open(t, f.driver, postgres.Pooler(t, server, schema)+f.params)
			db.SetMaxOpenConns(pool.Max)
			db.SetMaxIdleConns(pool.Max)
			w := work(t, db, pgqrs.Postgres, f.config)
			for range rounds(10, share) {
				w.progress(50)
			}
			w.finish(own, "PgBouncer in transaction mode, "+f.name, "each transaction on another server connection", 1)
			// After either of these log lines nothing was prepared.
			found := w.log.has("a pooler changes the server connection") || w.log.has("could not look for a pooler")
			if !f.config.NoPrepare && (!found || w.log.has("does not keep prepared statements")) {
				t.Errorf("the Store did not find the pooler before it prepared statements:\n%s", w.log)
			}
			if len(w.failures) > 0 {
				t.Errorf("%d calls failed, such as: %v", len(w.failures), w.failures[0])
			}
		}})
	}
	inject(t, faults)
}
