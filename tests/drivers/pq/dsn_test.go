package pq_test

import (
	"testing"

	"github.com/lib/pq"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestDSNs(t *testing.T) { dsn.Postgres(t, postgres.URL(postgres.Schema(t, "postgres"))) }

func TestErrorsHoldNoSecrets(t *testing.T) {
	dsn.NoSecrets(t, postgres.URL(postgres.Schema(t, "postgres")), new(*pq.Error))
}
