package ncruces_test

import (
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"

	_ "github.com/ncruces/go-sqlite3/vfs/adiantum"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
	_ "github.com/ncruces/go-sqlite3/vfs/xts"
)

var driver = dsn.Driver{
	Scheme:  "sqlite",
	Name:    "sqlite3 (github.com/ncruces/go-sqlite3/driver)",
	Ciphers: map[string]int{"adiantum": 32, "xts": 64},
	Cipher:  "adiantum",
}

func TestDSNs(t *testing.T) { dsn.Files(t, driver) }

func TestErrorsHoldNoSecrets(t *testing.T) {
	driver.NoSecretsInFiles(t, new(*sqlite3.Error))
}
