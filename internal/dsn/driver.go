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

// A found is a driver that the application links in.
type found struct {
	driver driver.Driver
	kind   *kind
	label  string // in errors
}

// A kind describes a driver that has more features than every driver of its dialect has.
type kind struct {
	mvcc    bool     // whether it has BEGIN CONCURRENT
	vfs     []string // besides auto and memory
	ciphers []cipher // the default comes first
	plan    func(src Source) (plan, error)
	hints   []hint
}

// A cipher is a cipher by the driver's name for it, with the sizes of its key in bytes.
type cipher struct {
	name  string
	sizes []int
}

var (
	// plainKind has only SQLite's own options in file: URIs. It is for mattn, modernc, and drivers
	// that register under their names.
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

	// go-libsql has a Go function for the encryption of replicas only. For a local file, libSQL's
	// PRAGMAs do the same.
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

// driverNames are the names of drivers by dialect, the preferred name first.
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

// find looks for a driver among the registered names.
func find(d Dialect, registered []string) (found, error) {
	for _, name := range driverNames[d] {
		if slices.Contains(registered, name) {
			return identify(name, d)
		}
	}
	return found{}, unsupported("no driver for %s is linked in; import %s", d, driverImports[d])
}

// identify tells drivers apart by the packages of their types, since two drivers register as
// sqlite3. It makes no connection.
func identify(name string, d Dialect) (found, error) {
	nowhere := ":memory:" // go-libsql accepts no empty DSN
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

// A plan is what a driver receives.
type plan struct {
	dsn string
	// look is a DSN that only opens the file, to inspect it first. It is empty if that is not
	// needed.
	look   string
	path   string    // of the file
	unlock []setting // the first settings of each connection: the key
	setup  []setting // the other settings
	memory bool      // the database is gone with its last connection
	note   string    // for the log
	hints  []hint
}

// A setting is a PRAGMA. The answer must be want, unless want is empty.
type setting struct{ name, value, want string }

// A hint explains a text in a driver's error.
type hint struct {
	text string // in lower case
	err  error
}

// explain adds an explanation to a driver's error if one is known.
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

// notDatabaseTexts are the errors of drivers that cannot read a file as a database.
var notDatabaseTexts = []string{
	"file is not a database",
	"decryption failed",                    // Turso, like the next
	"invalid page size in database header", // the file has no header
	"encryption is an opt in feature",      // this process has the file open without a key
}

// plan translates a source for the driver. It returns an error if the driver lacks a feature.
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

// planURI is for every driver that accepts SQLite's file: URIs.
func planURI(src Source) (plan, error) {
	p := plan{setup: []setting{{"busy_timeout", "5000", ""}}}
	if src.memory {
		// This is SQLite's own shared memory. With cache=shared it would ignore the busy timeout.
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

// planTurso is for Turso's own driver, which does not decode the path and ends it at the first
// question mark. Its files are always in WAL mode, or in MVCC mode after Install has set it.
func planTurso(src Source) (plan, error) {
	p := plan{dsn: src.path, setup: []setting{{"busy_timeout", "5000", ""}}}
	if src.mvcc {
		p.setup[0].value = "0" // the reason is at mvccTimeout
	}
	query := url.Values{}
	switch {
	case src.memory:
		p.dsn = "pgqrs-memory-" + src.path // not the name of any open file
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
		path = "/" + strings.TrimLeft(path, "/") // a name after // would be a host
	}
	uri := "file:" + (&url.URL{Path: path}).EscapedPath()
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	return uri
}
