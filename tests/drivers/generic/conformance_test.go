package generic_test

import (
	"database/sql"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

func TestConformance(t *testing.T) {
	requireDriver(t)
	conformance.Run(t, open)
}

func TestConnections(t *testing.T) {
	requireDriver(t)
	pool.Check(t, open)
}

// requireDriver skips the test if no driver is configured. A configured driver that is missing is a
// failure.
func requireDriver(t *testing.T) {
	t.Helper()
	driver := os.Getenv("PGQRS_TEST_DRIVER")
	if driver == "" {
		t.Skip("PGQRS_TEST_DRIVER is not set; go doc ./generic says how to test a driver of your own")
	}
	if !slices.Contains(sql.Drivers(), driver) {
		t.Fatalf("PGQRS_TEST_DRIVER is %q, but the drivers linked in are %q; go doc ./generic says how to add one", driver, sql.Drivers())
	}
}

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	t.Helper()
	driver := os.Getenv("PGQRS_TEST_DRIVER")
	dsn := os.Getenv("PGQRS_TEST_DSN")
	switch dialect := pgqrs.Dialect(os.Getenv("PGQRS_TEST_DIALECT")); dialect {
	case pgqrs.Postgres:
		if dsn == "" {
			return postgres.Open(t, driver), dialect
		}
		return postgres.OpenOn(t, driver, dsn), dialect
	case pgqrs.SQLite, pgqrs.Turso:
		if !strings.Contains(dsn, "{dir}") {
			t.Fatalf("PGQRS_TEST_DSN is %q; {dir} must stand in it, for the directory of a fresh database", dsn)
		}
		return sqlite.Open(t, driver, strings.ReplaceAll(dsn, "{dir}", t.TempDir())), dialect
	default:
		t.Fatalf("PGQRS_TEST_DIALECT is %q; want postgres, sqlite or turso", dialect)
		return nil, ""
	}
}
