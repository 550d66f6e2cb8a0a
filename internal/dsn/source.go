// Package dsn opens the database that a DSN names. It parses the DSN, finds the linked driver, and
// makes a pool whose connections all have the same settings. It keeps secrets out of errors.
package dsn

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A Dialect is the family of a database, with the name that package pgqrs gives it.
type Dialect string

// The dialects.
const (
	Postgres Dialect = "postgres"
	SQLite   Dialect = "sqlite"
	Turso    Dialect = "turso"
)

// ErrUnsupported is matched by the errors of a DSN that cannot be opened as it is.
var ErrUnsupported = errors.New("pgqrs: not supported")

// Settings are the fields of pgqrs.Config that a DSN may set too. Merge fills them in.
type Settings struct {
	Schema, VFS, Cipher, EncryptionKey string
	Concurrent                         bool
}

// A Source is a parsed DSN.
type Source struct {
	Dialect Dialect
	Place   string   // for errors: the file or the host
	url     string   // PostgreSQL: the DSN without the library's own options
	path    string   // of the file, or the name of a database in memory
	options []option // the library's own options, each once
	goos    string

	// These fields result from merging the options and Config.
	memory      bool
	mvcc        bool
	vfs, cipher string
	key         []byte
	synchronous string
}

// An option is a parameter of a DSN.
type option struct{ name, value string }

var (
	schemes = map[string]Dialect{"postgres": Postgres, "postgresql": Postgres, "sqlite": SQLite, "turso": Turso, "file": Turso}

	// The options of the SQLite family, and the values of the options that have a fixed set.
	fileOptions  = []string{"cipher", "encryption_key", "mvcc", "synchronous", "vfs"}
	optionValues = map[string][]string{
		"mvcc":        {"0", "1"},
		"synchronous": {"full", "normal"},
		"vfs":         {"auto", "syscall", "io_uring", "memory"},
	}
)

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

// Parse parses a DSN. Its errors quote no values, which may be secret.
func Parse(dsn string) (Source, error) {
	scheme, rest, found := strings.Cut(dsn, ":")
	dialect, known := schemes[scheme]
	switch {
	case known && dialect == Postgres:
		return parseURL(dsn, rest)
	case known:
		return parsePath(dialect, rest)
	case found && isScheme(scheme):
		return Source{}, unsupported("unknown scheme %q; use postgres:, postgresql:, sqlite:, turso: or file:", scheme)
	default:
		return Source{}, unsupported("the DSN has no scheme; begin it with postgres:, postgresql:, sqlite:, turso: or file:")
	}
}

func isScheme(s string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '+' && r != '.'
	}
	return s != "" && !strings.ContainsFunc(s, other)
}

// parseURL parses a PostgreSQL URL: //[USER[:PASSWORD]@]HOST[/DATABASE][?OPTIONS]. It refuses
// ambiguous URLs, because a part of the password could end up in the host's name, and so in an
// error.
func parseURL(dsn, rest string) (Source, error) {
	src := Source{Dialect: Postgres}
	errMalformed := unsupported("the DSN is not a valid URL; percent-encode what is not a letter or digit in the user name, password and database name")
	u, ok := splitURL(rest)
	switch {
	case !strings.HasPrefix(rest, "//"):
		return src, unsupported("the DSN is not of the form postgres://user:password@host/database")
	case !ok:
		return src, errMalformed
	}
	var theirs []string
	for piece := range strings.SplitSeq(u.query, "&") {
		if name, _, _ := strings.Cut(piece, "="); strings.Contains(name, "@") {
			return src, errMalformed // the name may be a password
		}
		o, err := parseOption(piece)
		switch {
		case err != nil:
			return src, err
		case strings.Contains(o.name, "@"):
			return src, errMalformed
		case slices.Contains(fileOptions, o.name):
			return src, unsupported("option %q is not one of PostgreSQL; sqlite: and turso: have it", o.name)
		case o.name == "schema":
			if err := src.add(o); err != nil {
				return src, err
			}
		case piece != "":
			theirs = append(theirs, piece)
		}
	}
	src.Place = u.host + "/" + u.database
	src.url, _, _ = strings.Cut(dsn, "?")
	if len(theirs) > 0 {
		src.url += "?" + strings.Join(theirs, "&")
	}
	return src, nil
}

// badPort matches a port that is no number, such as the text after u: in //u:password.
var badPort = regexp.MustCompile(`:[0-9]*[^0-9:\],][^:\]]*(,|$)`)

// A pgURL has the parts of a PostgreSQL URL. A list of hosts, which pgx accepts, is one host here.
type pgURL struct {
	user, password, host, database, query string
	written                               string // the password before it was decoded
}

func splitURL(rest string) (u pgURL, ok bool) {
	rest, u.query, _ = strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	host, path, _ := strings.Cut(rest, "/")
	u.host, u.database = host, path
	if i := strings.LastIndex(u.host, "@"); i >= 0 {
		u.user, u.password, _ = strings.Cut(u.host[:i], ":")
		u.host = u.host[i+1:]
	}
	u.written = u.password
	for _, part := range []*string{&u.user, &u.password, &u.database} {
		decoded, err := url.PathUnescape(*part)
		if err != nil {
			return u, false
		}
		*part = decoded
	}
	return u, !strings.Contains(rest, "#") && !strings.Contains(path, "@") && !badPort.MatchString(u.host)
}

// parsePath parses the DSN of a file: [//]PATH[?OPTIONS].
func parsePath(dialect Dialect, rest string) (Source, error) {
	src := Source{Dialect: dialect}
	path, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	for piece := range strings.SplitSeq(query, "&") {
		o, err := parseOption(piece)
		switch {
		case err != nil:
			return src, err
		case piece == "":
			continue
		case !slices.Contains(fileOptions, o.name):
			return src, unsupported("unknown option %q; %s has %s", o.name, dialect, strings.Join(fileOptions, ", "))
		}
		if err := src.add(o); err != nil {
			return src, err
		}
	}
	path, err := url.PathUnescape(path)
	switch {
	case err != nil:
		return src, unsupported("malformed percent-encoding in the path; write a %% in it as %%25")
	case path == "":
		return src, unsupported("the DSN names no file; write %s:PATH or %s::memory:", dialect, dialect)
	case strings.Contains(path, "\x00"):
		return src, unsupported("the path has a zero byte")
	case keyInPath.MatchString(path):
		return src, unsupported("encryption_key stands in the path; options begin with ?")
	}
	src.Place, src.path, src.memory = path, path, path == ":memory:"
	return src, nil
}

// parseOption decodes NAME=VALUE.
func parseOption(piece string) (option, error) {
	name, value, _ := strings.Cut(piece, "=")
	o := option{name: name}
	var err error
	if o.name, err = url.QueryUnescape(name); err != nil {
		return o, unsupported("malformed percent-encoding in the option %q", name)
	}
	if o.value, err = url.QueryUnescape(value); err != nil {
		return o, unsupported("malformed percent-encoding in the value of the option %q", o.name)
	}
	return o, nil
}

// add records one of the library's own options.
func (s *Source) add(o option) error {
	values, fixed := optionValues[o.name]
	switch {
	case slices.ContainsFunc(s.options, func(given option) bool { return given.name == o.name }):
		return unsupported("option %q is given twice", o.name)
	case fixed && !slices.Contains(values, o.value):
		return unsupported("%s=%s; it can be %s", o.name, o.value, strings.Join(values, ", "))
	case o.value == "":
		return unsupported("option %q is empty", o.name)
	}
	s.options = append(s.options, o)
	return nil
}

// Merge combines the options of the DSN with the settings. It stores the options in c.
func (s *Source) Merge(c *Settings) error {
	s.synchronous = "normal"
	for _, o := range s.options {
		var err error
		switch o.name {
		case "synchronous":
			s.synchronous = o.value
		case "mvcc":
			if o.value == "0" && c.Concurrent {
				err = unsupported("mvcc=0 and Config.Concurrent disagree")
			}
			c.Concurrent = o.value == "1"
		case "schema":
			err = agree(&c.Schema, o, "Schema", c.Schema != o.value)
		case "vfs":
			err = agree(&c.VFS, o, "VFS", c.VFS != o.value)
		case "cipher":
			err = agree(&c.Cipher, o, "Cipher", c.Cipher != o.value)
		case "encryption_key":
			err = agree(&c.EncryptionKey, o, "EncryptionKey", !strings.EqualFold(c.EncryptionKey, o.value))
		}
		if err != nil {
			return err
		}
	}
	return s.settle(*c)
}

// agree stores an option in the Config field of the same meaning.
func agree(field *string, o option, name string, differs bool) error {
	if *field != "" && differs {
		return unsupported("the option %s and Config.%s disagree", o.name, name)
	}
	*field = o.value
	return nil
}

// settle checks what Config says about the file.
func (s *Source) settle(c Settings) error {
	s.mvcc, s.vfs, s.cipher = c.Concurrent, c.VFS, c.Cipher
	if s.Dialect == Postgres {
		for name, value := range map[string]string{"VFS": c.VFS, "Cipher": c.Cipher, "EncryptionKey": c.EncryptionKey} {
			if value != "" {
				return unsupported("Config.%s is not for PostgreSQL; sqlite: and turso: have it", name)
			}
		}
		return nil
	}
	if s.vfs != "" && !slices.Contains(optionValues["vfs"], s.vfs) {
		return unsupported("Config.VFS is %q; it can be %s", s.vfs, strings.Join(optionValues["vfs"], ", "))
	}
	key, err := hex.DecodeString(c.EncryptionKey)
	s.key = key
	switch {
	case err != nil:
		return unsupported("encryption_key is not hexadecimal: it is two of 0-9 and a-f for each byte")
	case s.cipher != "" && len(key) == 0:
		return unsupported("cipher=%s without encryption_key", s.cipher)
	}
	s.memory = s.memory || s.vfs == "memory"
	switch {
	case s.memory && len(key) > 0:
		return unsupported("encryption_key: a database in memory has no file to encrypt")
	case s.memory && (s.vfs == "syscall" || s.vfs == "io_uring"):
		return unsupported("vfs=%s: a database in memory has no file", s.vfs)
	case s.path == ":memory:":
		s.path = rand.Text() // each Store has a database of its own
	}
	return nil
}

// A Pool is an open pool of connections.
type Pool struct {
	DB   *sql.DB
	Note string // for the log, or empty
	plan plan
}

// Open finds the driver among the linked ones, and creates the pool. goos is the operating system.
func (s Source) Open(ctx context.Context, goos string, hide Secrets) (*Pool, error) {
	s.goos = goos
	found, err := find(s.Dialect, sql.Drivers())
	if err != nil {
		return nil, err
	}
	p, err := found.plan(s)
	if err != nil {
		return nil, err
	}
	db, err := p.open(ctx, found, hide)
	if err != nil {
		return nil, p.explain(err)
	}
	return &Pool{db, p.note, p}, nil
}

// Explain adds an explanation to a driver's error if one is known.
func (p *Pool) Explain(err error) error { return p.plan.explain(err) }
