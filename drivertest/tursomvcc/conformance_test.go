// Package tursomvcc_test runs the conformance suite on the Turso engine in MVCC
// mode, with BEGIN CONCURRENT.
package tursomvcc_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/pool"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/turso"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

func TestConformance(t *testing.T) { pgqrstest.ConformanceConcurrent(t, open) }

func TestConnections(t *testing.T) {
	settings := append([]pool.Setting{{Query: "PRAGMA journal_mode", Want: "mvcc"}}, sqlite.Settings[:1]...)
	pool.Check(t, open, settings...)
}

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) { return turso.Open(t, "mvcc", nil), pgqrs.Turso }
