package dsn

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A found is a driver that the application has linked in.
type found struct {
	driver driver.Driver
	kind   *kind
	label  string // in errors
}

// A kind is what Open knows of a driver that has more than any driver of its
// dialect has.
type kind struct {
	mvcc    bool     // whether it has BEGIN CONCURRENT
	vfs     []string // besides auto and memory
	ciphers []cipher // the default first
	plan    func(src Source) (plan, error)
	hints   []hint
}

// A cipher is one by the name that the driver gives it, with the sizes of its key in bytes.
type cipher struct {
	name  string
	sizes []int
}

var (
	// SQLite's own options in file: URIs, and no more: mattn, modernc, and what registers under
	// their names.
	plainKind = &kind{plan: planURI}

	ncrucesKind = &kind{
		ciphers: []cipher{{"adiantum", []int{32}}, {"xts", []int{32, 48, 64}}},
		plan:    planNcruces,
		hints: []hint{
			{"no such vfs: memdb", unsupported(`a database in memory needs import _ "github.com/ncruces/go-sqlite3/vfs/memdb"`)},
			{"no such vfs: adiantum", unsupported(`encryption_key needs import _ "github.com/ncruces/go-sqlite3/vfs/adiantum"`)},
			{"no such vfs: xts", unsupported(`cipher=xts needs import _ "github.com/ncruces/go-sqlite3/vfs/xts"`)},
		},
	}

	// go-libsql has a Go function for encryption of replicas only; what it
	// calls, libSQL's PRAGMAs do for a local file.
	libsqlKind = &kind{
		ciphers: []cipher{{"aes256cbc", []int{32}}},
		plan:    planLibsql,
	}

	tursoKind = &kind{
		mvcc: true,
		vfs:  []string{"syscall", "io_uring"},
		ciphers: []cipher{
			{"aegis256", []int{32}}, {"aegis256x2", []int{32}}, {"aegis256x4", []int{32}}, {"aes256gcm", []int{32}},
			{"aegis128l", []int{16}}, {"aegis128x2", []int{16}}, {"aegis128x4", []int{16}}, {"aes128gcm", []int{16}},
		},
		plan: planTurso,
	}
)

// driverNames are the names to look for, the preferred one first.
var driverNames = map[Dialect][]string{
	Postgres: {"postgres", "pgx"},
	SQLite:   {"sqlite3", "sqlite"},
	Turso:    {"turso", "libsql"},
}

var driverImports = map[Dialect]string{
	Postgres: "github.com/lib/pq or github.com/jackc/pgx/v5/stdlib",
	SQLite:   "github.com/ncruces/go-sqlite3/driver, modernc.org/sqlite or github.com/mattn/go-sqlite3",
	Turso:    "turso.tech/database/tursogo or github.com/tursodatabase/go-libsql",
}

// find looks for a driver among the names that are registered.
func find(d Dialect, registered []string) (found, error) {
	for _, name := range driverNames[d] {
		if slices.Contains(registered, name) {
			return identify(name, d)
		}
	}
	return found{}, unsupported("no driver for %s is linked in; import %s", d, driverImports[d])
}

// identify tells drivers apart by the packages of their types, since two
// register as sqlite3. Nothing is connected to.
func identify(name string, d Dialect) (found, error) {
	nowhere := ":memory:" // go-libsql takes no empty DSN
	if d == Postgres {
		nowhere = ""
	}
	db, err := sql.Open(name, nowhere)
	if err != nil {
		return found{}, err
	}
	defer db.Close()
	f := found{driver: db.Driver(), kind: plainKind, label: name}
	t := reflect.TypeOf(f.driver)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.PkgPath() != "" {
		f.label = fmt.Sprintf("%s (%s)", name, t.PkgPath())
	}
	f.kind = kindOf(name, t.PkgPath())
	return f, nil
}

func kindOf(name, pkg string) *kind {
	switch {
	case name == "turso":
		return tursoKind
	case strings.HasPrefix(pkg, "github.com/ncruces/go-sqlite3"):
		return ncrucesKind
	case strings.HasPrefix(pkg, "github.com/tursodatabase/go-libsql"):
		return libsqlKind
	}
	return plainKind
}

// A plan is what a driver is given.
type plan struct {
	dsn    string
	look   string    // a DSN that opens the file and nothing else, to look at it first; empty: no need
	path   string    // of that file
	unlock []setting // the first settings of each connection: the key
	setup  []setting // the others
	memory bool      // gone with its last connection
	note   string    // for the log
	hints  []hint
}

// A setting is a PRAGMA. Want is what it must answer; empty: anything.
type setting struct{ name, value, want string }

// A hint says what a text in a driver's error means.
type hint struct {
	text string // in lower case
	err  error
}

// explain adds to a driver's error what is known of it.
func (p plan) explain(err error) error {
	for _, h := range p.hints {
		if sqlerr.Contains(err, []string{h.text}) {
			return fmt.Errorf("%w (%w)", h.err, err)
		}
	}
	return err
}

var (
	errKeyless  = errors.New("the file is not a database, or it is encrypted and there is no encryption_key")
	errWrongKey = errors.New("the encryption_key or the cipher is wrong, or the file is not encrypted")
)

// notDatabaseTexts are how a driver says that it cannot make sense of a file.
var notDatabaseTexts = []string{
	"file is not a database",
	"decryption failed",                    // Turso, like the next
	"invalid page size in database header", // no header at all
	"encryption is an opt in feature",      // this process has the file open without a key
}

// plan translates a source for the driver, or says what the driver does not have.
func (f found) plan(src Source) (plan, error) {
	if src.Dialect == Postgres {
		return plan{dsn: src.url}, nil
	}
	switch {
	case src.mvcc && !f.kind.mvcc:
		return plan{}, unsupported("mvcc=1: the driver %s has no BEGIN CONCURRENT; turso (turso.tech/database/tursogo) has", f.label)
	case (src.vfs == "syscall" || src.vfs == "io_uring") && !slices.Contains(f.kind.vfs, src.vfs):
		return plan{}, unsupported("vfs=%s: the driver %s does not have it; turso (turso.tech/database/tursogo) has", src.vfs, f.label)
	}
	if len(src.key) > 0 {
		if err := f.cipher(&src); err != nil {
			return plan{}, err
		}
	}
	p, err := f.kind.plan(src)
	p.memory = src.memory
	p.setup = append(p.setup, setting{"synchronous", src.synchronous, ""}, setting{"foreign_keys", "on", ""})
	p.hints = slices.Clone(f.kind.hints)
	notDatabase := errKeyless
	if len(src.key) > 0 {
		notDatabase = errWrongKey
	}
	for _, text := range notDatabaseTexts {
		p.hints = append(p.hints, hint{text, notDatabase})
	}
	return p, err
}

// cipher checks the cipher and the length of its key, and chooses the default.
func (f found) cipher(src *Source) error {
	if len(f.kind.ciphers) == 0 {
		return unsupported("encryption_key: the driver %s has no encryption; sqlite3 of github.com/ncruces/go-sqlite3, turso and libsql have", f.label)
	}
	var names []string
	for _, c := range f.kind.ciphers {
		names = append(names, c.name)
		if src.cipher != "" && src.cipher != c.name {
			continue
		}
		if !slices.Contains(c.sizes, len(src.key)) {
			return unsupported("encryption_key has %d bytes; the cipher %s takes %s", len(src.key), c.name, sizes(c.sizes))
		}
		src.cipher = c.name
		return nil
	}
	return unsupported("cipher=%s: the driver %s does not have it; it has %s", src.cipher, f.label, strings.Join(names, ", "))
}

func sizes(list []int) string {
	return strings.Join(strings.Fields(strings.Trim(fmt.Sprint(list), "[]")), " or ")
}

// planURI is for every driver that takes SQLite's file: URIs.
func planURI(src Source) (plan, error) {
	p := plan{setup: []setting{{"busy_timeout", "5000", ""}}}
	if src.memory {
		// SQLite's own shared memory; cache=shared ignores the busy timeout.
		p.dsn = fileURI("/"+src.path, url.Values{"vfs": {"memdb"}})
		return p, nil
	}
	p.path = src.path
	p.dsn = fileURI(src.path, nil)
	p.look = fileURI(src.path, url.Values{"immutable": {"1"}})
	p.setup = append(p.setup, setting{"journal_mode", "wal", "wal"})
	return p, nil
}

func planNcruces(src Source) (plan, error) {
	p, err := planURI(src)
	if len(src.key) > 0 {
		p.dsn = fileURI(src.path, url.Values{"vfs": {src.cipher}})
		p.look = fileURI(src.path, url.Values{"vfs": {src.cipher}, "immutable": {"1"}})
		p.unlock = []setting{{"hexkey", "'" + hex.EncodeToString(src.key) + "'", "ok"}}
	}
	return p, err
}

func planLibsql(src Source) (plan, error) {
	p, err := planURI(src)
	if len(src.key) > 0 {
		p.unlock = []setting{{"cipher", "'" + src.cipher + "'", src.cipher}, {"hexkey", "'" + hex.EncodeToString(src.key) + "'", "ok"}}
	}
	return p, err
}

// planTurso is for Turso's own driver, which does not decode the path and ends
// it at the first question mark. Its files are always in WAL mode or, once
// Install has said so, in MVCC mode.
func planTurso(src Source) (plan, error) {
	p := plan{dsn: src.path, setup: []setting{{"busy_timeout", "5000", ""}}}
	if src.mvcc {
		p.setup[0].value = "0" // see mvccTimeout
	}
	query := url.Values{}
	switch {
	case src.memory:
		p.dsn = "pgqrs-memory-" + src.path // not the name of a file that is open
		query.Set("vfs", "memory")
	case src.vfs == "io_uring" && src.goos != "linux":
		p.note = "vfs=io_uring is there on Linux only; using syscall"
		query.Set("vfs", "syscall")
	case src.vfs == "io_uring" || src.vfs == "syscall":
		query.Set("vfs", src.vfs)
	}
	if len(src.key) > 0 {
		query.Set("experimental", "encryption")
		query.Set("encryption_cipher", src.cipher)
		query.Set("encryption_hexkey", hex.EncodeToString(src.key))
	}
	if strings.Contains(src.path, "?") {
		return p, unsupported("the driver turso cannot open a path with a question mark")
	}
	if len(query) > 0 {
		p.dsn += "?" + query.Encode()
	}
	return p, nil
}

// fileURI writes a path as SQLite reads it.
func fileURI(path string, query url.Values) string {
	if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/") // what follows // would be a host
	}
	uri := "file:" + (&url.URL{Path: path}).EscapedPath()
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	return uri
}
