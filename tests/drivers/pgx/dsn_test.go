package pgx_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestDSNs(t *testing.T) { dsn.Postgres(t, postgres.URL(postgres.Schema(t, "pgx"))) }

func TestErrorsHoldNoSecrets(t *testing.T) {
	dsn.NoSecrets(t, postgres.URL(postgres.Schema(t, "pgx")), new(*pgconn.ConnectError), new(*pgconn.ParseConfigError), new(*pgconn.PgError))
}

// The errors of pgx hold the DSN of a pool that the application made.
func TestErrorsOfThePoolHoldNoSecrets(t *testing.T) {
	const password = "correct-horse-battery"
	for _, url := range []string{"postgres://ada:" + password + "@127.0.0.1:1/db?sslmode=disable", "postgres://ada:" + password + "@127.0.0.1:1/db?sslmode=sometimes"} {
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s := pgqrs.New(db, pgqrs.Postgres)
		_, listed := s.Queues(t.Context())
		for what, err := range map[string]error{"Queues": listed, "Install": s.Install(t.Context()), "DropQueue": s.DropQueue(t.Context(), "q")} {
			if where := testkit.Secret(err, password, new(*pgconn.ConnectError), new(*pgconn.ParseConfigError)); err == nil || where != "" {
				t.Errorf("%s: the password stands in %s: %v", what, where, err)
			}
		}
	}
}
