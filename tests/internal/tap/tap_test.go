package tap

import (
	"context"
	"database/sql"
	"path/filepath"
	"runtime/pprof"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"
)

func open(t *testing.T) (*sql.DB, *Tap) {
	t.Helper()
	db := Open(t, "sqlite3", "file:"+filepath.ToSlash(filepath.Join(t.TempDir(), "tap.db")))
	t.Cleanup(func() { db.Close() })
	return db, Of(db)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCounts(t *testing.T) {
	db, p := open(t)
	want := func(what string, want counts) {
		t.Helper()
		if got := p.counted(); got != want {
			t.Errorf("%s: %v; want %v", what, got, want)
		}
	}
	conn, err := db.Conn(t.Context())
	must(t, err)
	want("a connection", counts{conns: 1})
	rows, err := conn.QueryContext(t.Context(), "SELECT 1 UNION SELECT 2")
	must(t, err)
	rows.Next()
	want("rows, which this driver reads by a statement", counts{conns: 1, stmts: 1, rows: 1})
	must(t, rows.Close())
	stmt, err := conn.PrepareContext(t.Context(), "SELECT 1")
	must(t, err)
	want("a statement", counts{conns: 1, stmts: 1})
	must(t, stmt.Close())
	tx, err := conn.BeginTx(t.Context(), nil)
	must(t, err)
	want("a transaction", counts{conns: 1, txs: 1})
	must(t, tx.Rollback())
	for _, text := range []string{"/* pgqrs:begin */ BEGIN IMMEDIATE", "/* pgqrs:commit */ COMMIT", "/* pgqrs:begin */ BEGIN IMMEDIATE", "/* pgqrs:rollback */ ROLLBACK"} {
		want("before "+text, counts{conns: 1, txs: p.counted().txs})
		_, err = conn.ExecContext(t.Context(), text)
		must(t, err)
	}
	_, err = conn.ExecContext(t.Context(), "/* pgqrs:begin */ BEGIN IMMEDIATE")
	must(t, err)
	want("a transaction of the library's", counts{conns: 1, txs: 1})
	must(t, conn.Close())
	want("a transaction that is given back with its connection", counts{conns: 1, txs: 1})
	must(t, db.Close())
	want("nothing", counts{})
}

func TestGoroutinesAreThoseOfTheTest(t *testing.T) {
	gate, ended := make(chan struct{}), make(chan struct{})
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("tap", "ours")))
	go func() {
		defer close(ended)
		<-gate
	}()
	pprof.SetGoroutineLabels(context.Background())
	if goroutines(t, "ours") == "" || goroutines(t, "theirs") != "" {
		t.Error("a goroutine is not seen, or one that is not there")
	}
	close(gate)
	<-ended
	wait(t, "goroutines left", func() string { return goroutines(t, "ours") })
}

func TestStops(t *testing.T) {
	db, p := open(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE t (n INTEGER)")
	must(t, err)
	for _, after := range []bool{false, true} {
		stop := p.stop(t, "/* held */", after)
		done := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(t.Context(), "/* held */ INSERT INTO t VALUES (1)")
			done <- err
		}()
		stop.Wait(t)
		var n int
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n))
		if (n == 1) != after || len(done) > 0 {
			t.Errorf("held after it is done: %v; there are %d rows, and %d have been told", after, n, len(done))
		}
		stop.Go()
		must(t, <-done)
		_, err := db.ExecContext(t.Context(), "/* held */ DELETE FROM t") // it is not held
		must(t, err)
	}
}
