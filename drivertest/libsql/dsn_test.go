package libsql_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/dsn"
)

func TestDSNs(t *testing.T) {
	for _, scheme := range []string{"turso", "file"} {
		dsn.Files(t, dsn.Driver{
			Scheme:  scheme,
			Name:    "libsql (github.com/tursodatabase/go-libsql)",
			Ciphers: map[string]int{"aes256cbc": 32},
			Cipher:  "aes256cbc",
		})
	}
}
