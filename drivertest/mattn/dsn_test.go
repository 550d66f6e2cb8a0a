package mattn_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/dsn"
)

func TestDSNs(t *testing.T) {
	dsn.Files(t, dsn.Driver{Scheme: "sqlite", Name: "sqlite3 (github.com/mattn/go-sqlite3)"})
}
