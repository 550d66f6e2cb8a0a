//go:build unix

package interop_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

func TestInstall(t *testing.T) {
	t.Run("Go adopts what Python installed, with what is in it, and Python goes on", func(t *testing.T) {
		onBoth(t, func(t *testing.T, p *pair) {
			p.py.run(t, `
				await my.admin.install()
				await my.store.queue("jobs")
				my.producer = await my.store.producer("jobs")
				await my.producer.enqueue({"n": 1})
			`, nil)
			ledger := p.query(t, `SELECT count(*) FROM _sqlx_migrations`)
			must(t, p.store.Install(t.Context()))
			wantOK(t, p.store)
			m := value(pgqrs.NewQueue[map[string]int](p.store, "jobs").Dequeue(t.Context(), 1, patience))(t)
			equal(t, "payload", m[0].Payload["n"], 1)
			equal(t, "Python's migrations", p.query(t, `SELECT count(*) FROM _sqlx_migrations`), ledger)
			p.py.run(t, `await my.admin.verify()`, nil)
		})
	})
}
