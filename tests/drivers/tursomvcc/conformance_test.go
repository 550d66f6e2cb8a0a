// Package tursomvcc_test runs the conformance suite on the Turso engine in MVCC
// mode, with BEGIN CONCURRENT.
package tursomvcc_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"
)

func TestConformance(t *testing.T) { conformance.RunConcurrent(t, open) }

func TestConnections(t *testing.T) {
	installed := func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
		db, dialect := open(t)
		if err := (pgqrs.Config{Concurrent: true}).New(db, dialect).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		return db, dialect
	}
	pool.Check(t, installed,
		pool.Setting{Query: "PRAGMA busy_timeout", Want: "0"},
		pool.Setting{Query: "PRAGMA journal_mode", Want: "mvcc"},
		pool.Setting{Query: "PRAGMA synchronous", Want: "1"},
		pool.Setting{Query: "PRAGMA foreign_keys", Want: "1"})
}

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) { return turso.Open(t, "?mvcc=1") }
