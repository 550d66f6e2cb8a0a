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
	installed := func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
		db, dialect := open(t)
		if err := (pgqrs.Config{Concurrent: true}).New(db, dialect).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		return db, dialect
	}
	settings := append([]pool.Setting{{Query: "PRAGMA journal_mode", Want: "mvcc"}}, sqlite.Settings...)
	pool.Check(t, installed, append(settings[:2:2], settings[3:]...)...) // the third is WAL
}

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) { return turso.Open(t, "?mvcc=1") }
