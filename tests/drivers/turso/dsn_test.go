package turso_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"
)

var driver = dsn.Driver{
	Scheme:  "turso",
	Name:    "turso (github.com/pgqrs/pgqrs-go/tests/internal/turso)",
	Turso:   true,
	Ciphers: map[string]int{"aegis256": 32, "aegis128l": 16, "aes256gcm": 32},
	Cipher:  "aegis256",
}

func TestDSNs(t *testing.T) {
	turso.Require(t)
	// The engine's Node package has no database in memory that several connections share.
	dsn.OnDisk(t, driver)
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	turso.Require(t)
	driver.NoSecretsInFiles(t)
}
