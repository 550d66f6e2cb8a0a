// Package turso_test runs the conformance suite on the Turso engine, with a
// file in WAL mode.
package turso_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"
)

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) { return turso.Open(t, "") }
