// Package settings_test runs the conformance suite on PostgreSQL servers whose settings change the
// text of times, intervals, numbers and bytes. It uses drivers that read answers as text.
package settings_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// unusual are settings of a server that must not affect any answer.
var unusual = []string{
	"DateStyle=German, DMY",
	"IntervalStyle=sql_standard",
	"TimeZone=Pacific/Chatham",
	"bytea_output=escape",
	"extra_float_digits=-15",
	"default_transaction_isolation=repeatable read",
	"array_nulls=off",
	"transform_null_equals=on",
	"quote_all_identifiers=on",
}

func TestPgxExec(t *testing.T) {
	runSuite(t, "pgx", " default_query_exec_mode=exec")
}

func TestPgxSimpleProtocol(t *testing.T) {
	runSuite(t, "pgx", " default_query_exec_mode=simple_protocol")
}

func TestPQ(t *testing.T) {
	runSuite(t, "postgres", " binary_parameters=yes")
}

// runSuite runs the suite with a driver and more parameters in its DSN.
func runSuite(t *testing.T, driver, parameters string) {
	server := postgres.Private(t, unusual...)
	conformance.Run(t, func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
		return postgres.OpenOn(t, driver, server.DSN()+parameters), pgqrs.Postgres
	})
}

// If the server took a text for another encoding, it would store a different text.
func TestAnotherClientEncodingIsRefused(t *testing.T) {
	s := pgqrs.New(postgres.OpenOn(t, "pgx", postgres.Private(t).DSN()+" client_encoding=LATIN1"), pgqrs.Postgres)
	_, verified := s.Verify(t.Context())
	for call, err := range map[string]error{"Install": s.Install(t.Context()), "Verify": verified} {
		if !errors.Is(err, pgqrs.ErrUnsupported) || !strings.Contains(err.Error(), "LATIN1") {
			t.Errorf("%s: %v; want an error that names the encoding", call, err)
		}
	}
}
