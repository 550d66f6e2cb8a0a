package libsql_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
)

var driver = dsn.Driver{
	Scheme:  "turso",
	Name:    "libsql (github.com/tursodatabase/go-libsql)",
	Ciphers: map[string]int{"aes256cbc": 32},
	Cipher:  "aes256cbc",
}

func TestDSNs(t *testing.T) {
	other := driver
	other.Scheme = "file"
	dsn.Files(t, driver)
	dsn.Files(t, other)
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	driver.NoSecretsInFiles(t)
}
