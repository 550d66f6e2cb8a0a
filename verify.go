package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A Report is what Verify found.
type Report struct {
	Dialect Dialect
	// Engine is the database's own name and version.
	Engine string
	// Concurrency says who may write at once: "multi-process" (PostgreSQL: any number of processes do),
	// "single-writer" (SQLite, Turso: they take turns) or "experimental" (Config.Concurrent).
	Concurrency string
	// Schema is the version of the schema that is installed; Library is the one that this library makes.
	Schema, Library int64
	// Missing names tables, columns and indexes that should be there. If it is not empty, Install helps.
	Missing []string
	// Newer names migrations that this library does not know.
	Newer []string
	// Warnings say what else is worth a look: settings of the database that lose data or make processes
	// fail each other's calls, as one connection of the pool has them, and a pool that is too small.
	Warnings []string

	tooNew bool // whether this library is too old for it
}

// OK reports whether the library can work on what Verify found.
func (r Report) OK() bool { return len(r.Missing) == 0 && r.Schema >= r.Library && !r.tooNew }

// Verify looks at what is installed, by looking at it rather than by trusting
// version numbers, and changes nothing. A schema that is missing, older or
// newer is not an error but in the Report.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	err := s.usable()
	r := Report{Dialect: s.name}
	if err == nil {
		r.Concurrency = s.concurrency()
		err = conn{s, s.tx}.verify(ctx, &r)
	}
	return r, wrap(ctx, err, "verify")
}

func (c conn) verify(ctx context.Context, r *Report) error {
	d := c.store.dialect
	if err := c.rows(ctx, d.schema.engine, nil, func(rows *sql.Rows) error { return rows.Scan(&r.Engine) }); err != nil {
		return err
	}
	if err := c.checkSettings(ctx, r); err != nil {
		return err
	}
	known, err := d.all()
	if err != nil {
		return err
	}
	r.Library = known[len(known)-1].version
	there, err := c.objects(ctx)
	if err != nil {
		return err
	}
	foreign := c.store.checkOwn(known, there)
	if foreign != nil {
		r.Warnings = append(r.Warnings, unprefixed(foreign))
	}
	for _, o := range missingOf(known, there) {
		r.Missing = append(r.Missing, o.String())
	}
	if foreign != nil || !there.has("table", "pgqrs_migrations", "") {
		return nil
	}
	applied, err := c.versions(ctx)
	if err != nil {
		return err
	}
	for _, a := range applied {
		r.Schema = max(r.Schema, a.version)
		if a.version > r.Library {
			r.Newer = append(r.Newer, fmt.Sprintf("%d (%s)", a.version, a.name))
		}
	}
	if err := tooNew(applied, known); err != nil {
		r.tooNew = true
		r.Warnings = append(r.Warnings, err.Error())
	}
	return nil
}

// singleWriter is the concurrency of a database that does one write after the other.
const singleWriter = "single-writer"

func (s *Store) concurrency() string {
	if s.cfg.Concurrent {
		return "experimental"
	}
	return s.dialect.concurrency
}

// settingWarnings are the answers of the dialects' settings that are worth a warning.
var settingWarnings = map[string]map[string]string{
	"fsync":              {"off": "a crash of the server's machine can corrupt the database"},
	"synchronous_commit": {"off": "what was enqueued or acked in the last moments before a crash of the server is lost"},
	"journal_mode":       {"delete": noWAL, "truncate": noWAL, "persist": noWAL, "off": "a crash can corrupt the database"},
	"busy_timeout":       {"0": "a call fails at once while another process writes; set it to 5000 ms on every connection"},
	"synchronous":        {"0": "a power cut can corrupt the database; set it to NORMAL or FULL on every connection"},
}

// mvccTimeout is the warning of a busy timeout in MVCC mode: the engine ends the
// process (Turso 0.7.2, "transaction should exist in txs map") where an INSERT
// of BEGIN CONCURRENT has to wait for a transaction that began otherwise.
const mvccTimeout = "in MVCC mode the engine may end the process when an INSERT waits for another transaction; set it to 0 on every connection, conflicts are tried again anyway"

const noWAL = "readers and writers keep each other out; set it to WAL"

// checkSettings asks one connection for its settings, and the pool for its size.
func (c conn) checkSettings(ctx context.Context, r *Report) error {
	settings := c.store.dialect.schema.settings
	names := slices.Sorted(maps.Keys(settings))
	answers := map[string]string{}
	for _, name := range names {
		err := c.rows(ctx, settings[name], nil, func(rows *sql.Rows) error {
			var answer string
			err := rows.Scan(&answer)
			answers[name] = answer
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, name := range names {
		warning := settingWarnings[name][answers[name]]
		if name == "busy_timeout" && answers["journal_mode"] == "mvcc" {
			warning = map[bool]string{false: mvccTimeout}[answers[name] == "0"]
		}
		if warning != "" {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s is %s: %s", name, answers[name], warning))
		}
	}
	if c.store.db.Stats().MaxOpenConnections == 1 {
		r.Warnings = append(r.Warnings, "the pool has one connection (SetMaxOpenConns(1)): code that uses the *sql.DB while it has a transaction open waits for itself; allow at least 2")
	}
	if !c.store.cfg.Concurrent || c.tx != nil {
		return nil
	}
	err := c.store.beginConcurrent(ctx)
	if errors.Is(err, errNoConcurrent) || errors.Is(err, errNoMVCC) {
		r.Warnings = append(r.Warnings, err.Error())
		return nil
	}
	return err
}
