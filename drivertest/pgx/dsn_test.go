package pgx_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/dsn"
	"github.com/pgqrs/pgqrs-go/drivertest/postgres"
)

func TestDSNs(t *testing.T) { dsn.Postgres(t, postgres.URL(postgres.Schema(t, "pgx"))) }
