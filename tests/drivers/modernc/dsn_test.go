package modernc_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"modernc.org/sqlite"
)

var driver = dsn.Driver{Scheme: "sqlite", Name: "sqlite (modernc.org/sqlite)"}

func TestDSNs(t *testing.T) { dsn.Files(t, driver) }

func TestErrorsHoldNoSecrets(t *testing.T) {
	driver.NoSecretsInFiles(t, new(*sqlite.Error))
}
