package dsn

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"testing"
)

const testKey = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"

// A linked is a registered driver that opens nothing.
type linked struct{ name string }

func (linked) Open(string) (driver.Conn, error) { return nil, errors.New("it opens nothing") }

func init() {
	for _, name := range []string{"postgres", "sqlite3", "turso"} {
		sql.Register(name, linked{name})
	}
}

// The test checks the DSN of each driver and the settings of its connections.
func TestWhatDriversAreGiven(t *testing.T) {
	const setup = "busy_timeout = 5000, journal_mode = wal, synchronous = normal, foreign_keys = on"
	short := testKey[:32]
	for _, c := range []struct {
		kind             *kind
		dsn              string
		want, look, told string
	}{
		{plainKind, "sqlite:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{plainKind, "sqlite://dir/q.db", "file:dir/q.db", "file:dir/q.db?immutable=1", setup},
		{plainKind, "sqlite:///var/q.db", "file:/var/q.db", "file:/var/q.db?immutable=1", setup},
		{plainKind, "sqlite:////var/q.db", "file:/var/q.db", "file:/var/q.db?immutable=1", setup},
		{plainKind, "sqlite:a b%25%3F%23&=+ü.db", "file:a%20b%25%3F%23&=+%C3%BC.db", "file:a%20b%25%3F%23&=+%C3%BC.db?immutable=1", setup},
		{plainKind, "sqlite:q.db?vfs=auto&mvcc=0&", "file:q.db", "file:q.db?immutable=1", setup},
		{plainKind, "sqlite:q.db?synchronous=full", "file:q.db", "file:q.db?immutable=1", strings.Replace(setup, "normal", "full", 1)},
		{plainKind, "sqlite:jobs?vfs=memory", "file:/jobs?vfs=memdb", "", strings.Replace(setup, "journal_mode = wal, ", "", 1)},
		{ncrucesKind, "sqlite:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{ncrucesKind, "sqlite:q.db?encryption_key=" + strings.ToUpper(testKey), "file:q.db?vfs=adiantum", "file:q.db?immutable=1&vfs=adiantum", "hexkey = '" + testKey + "', " + setup},
		{ncrucesKind, "sqlite:q.db?cipher=xts&encryption_key=" + testKey + testKey, "file:q.db?vfs=xts", "file:q.db?immutable=1&vfs=xts", "hexkey = '" + testKey + testKey + "', " + setup},
		{libsqlKind, "turso:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{libsqlKind, "file:q.db?encryption_key=" + testKey, "file:q.db", "file:q.db?immutable=1", "cipher = 'aes256cbc', hexkey = '" + testKey + "', " + setup},
		{libsqlKind, "turso:jobs?vfs=memory", "file:/jobs?vfs=memdb", "", strings.Replace(setup, "journal_mode = wal, ", "", 1)},
		{tursoKind, "turso:a b%25&.db", "a b%&.db", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "file:///var/q.db?mvcc=1", "/var/q.db", "", "busy_timeout = 0, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?vfs=io_uring", "q.db?vfs=io_uring", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?vfs=syscall", "q.db?vfs=syscall", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:jobs?vfs=memory", "pgqrs-memory-jobs?vfs=memory", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?encryption_key=" + testKey, "q.db?encryption_cipher=aegis256&encryption_hexkey=" + testKey + "&experimental=encryption", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?cipher=aes128gcm&encryption_key=" + short, "q.db?encryption_cipher=aes128gcm&encryption_hexkey=" + short + "&experimental=encryption", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{plainKind, "postgres://u:p%40@h:1,i:2/db?sslmode=disable&schema=jobs&x=a%20b", "postgres://u:p%40@h:1,i:2/db?sslmode=disable&x=a%20b", "", ""},
		{plainKind, "postgres://[::1]:5432,[fe80::1]/db", "postgres://[::1]:5432,[fe80::1]/db", "", ""},
		{plainKind, "postgresql:///db?host=/run&schema=jobs", "postgresql:///db?host=/run", "", ""},
		{plainKind, "postgres://h/db?schema=jobs", "postgres://h/db", "", ""},
	} {
		src, err := Parse(c.dsn)
		if err == nil {
			err = src.Merge(&Settings{})
		}
		src.goos = "linux"
		if err != nil {
			t.Errorf("%s: %v", c.dsn, err)
			continue
		}
		p, err := found{kind: c.kind}.plan(src)
		var told []string
		for _, s := range append(slices.Clone(p.unlock), p.setup...) {
			told = append(told, s.name+" = "+s.value)
		}
		if slices.ContainsFunc(p.unlock, func(s setting) bool { return s.want == "" }) {
			t.Errorf("%s: nothing tells whether the key was taken", c.dsn)
		}
		if got := strings.Join(told, ", "); err != nil || p.dsn != c.want || p.look != c.look || got != c.told {
			t.Errorf("%s:\n gives %q, %q, %s, %v\n want  %q, %q, %s", c.dsn, p.dsn, p.look, got, err, c.want, c.look, c.told)
		}
	}
}

func TestDriversAreFoundByNameInOrder(t *testing.T) {
	for _, c := range []struct {
		dialect    Dialect
		registered []string
		want       string // the driver, or a text of the error
	}{
		{Postgres, []string{"pgx", "postgres", "sqlite3"}, "postgres"},
		{SQLite, []string{"sqlite", "sqlite3", "turso"}, "sqlite3"},
		{Turso, []string{"libsql", "sqlite3", "turso"}, "turso"},
		{Postgres, []string{"sqlite3", "turso"}, "no driver for postgres is linked in; import github.com/lib/pq or github.com/jackc/pgx/v5/stdlib"},
		{SQLite, nil, "no driver for sqlite is linked in; import github.com/ncruces/go-sqlite3/driver, modernc.org/sqlite or github.com/mattn/go-sqlite3"},
		{Turso, []string{"sqlite3"}, "no driver for turso is linked in; import turso.tech/database/tursogo or github.com/tursodatabase/go-libsql"},
	} {
		f, err := find(c.dialect, c.registered)
		if err != nil && (!errors.Is(err, ErrUnsupported) || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%s among %q: %v, want %s", c.dialect, c.registered, err, c.want)
		}
		if err == nil && f.driver != driver.Driver(linked{c.want}) {
			t.Errorf("%s among %q: found %s, want %s", c.dialect, c.registered, f.label, c.want)
		}
	}
	for pkg, want := range map[string]*kind{
		"github.com/ncruces/go-sqlite3/driver": ncrucesKind, "github.com/mattn/go-sqlite3": plainKind, "modernc.org/sqlite": plainKind,
		"github.com/tursodatabase/go-libsql": libsqlKind, "example.com/wrapper": plainKind,
	} {
		if got := kindOf("sqlite3", pkg); got != want {
			t.Errorf("a driver of %s is taken for another", pkg)
		}
	}
	if kindOf("turso", "turso.tech/database/tursogo") != tursoKind {
		t.Error("the driver turso is taken for another")
	}
}
