package mattn_test

import (
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
)

var driver = dsn.Driver{Scheme: "sqlite", Name: "sqlite3 (github.com/mattn/go-sqlite3)"}

func TestDSNs(t *testing.T) { dsn.Files(t, driver) }

func TestErrorsHoldNoSecrets(t *testing.T) {
	driver.NoSecretsInFiles(t, new(sqlite3.Error))
}
