package ncruces_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/dsn"

	_ "github.com/ncruces/go-sqlite3/vfs/adiantum"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
	_ "github.com/ncruces/go-sqlite3/vfs/xts"
)

func TestDSNs(t *testing.T) {
	dsn.Files(t, dsn.Driver{
		Scheme:  "sqlite",
		Name:    "sqlite3 (github.com/ncruces/go-sqlite3/driver)",
		Ciphers: map[string]int{"adiantum": 32, "xts": 64},
		Cipher:  "adiantum",
	})
}
