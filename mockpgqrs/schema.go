package mockpgqrs

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

// ExpectInstall expects the first Install of a Store, with nothing to do. All tables exist, and
// pgqrs 0.15 does not use them.
func ExpectInstall(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
	switch d {
	case pgqrs.Postgres:
		query(mock, "schema.engine", nil, row{"PostgreSQL 17.0"})
	case pgqrs.SQLite:
		query(mock, "schema.engine", nil, row{"SQLite 3.51.3"})
		query(mock, "schema.turso", nil).WillReturnError(errors.New("no such function: turso_version"))
	case pgqrs.Turso:
		query(mock, "schema.engine", nil, row{"SQLite 3.50.4"})
		query(mock, "schema.turso", nil, row{"Turso 0.7.2"})
	}
	query(mock, "schema.encoding", nil, row{"UTF8"})
	versions, objects := installed(d)
	query(mock, "schema.versions", nil, versions...)
	query(mock, "schema.objects", nil, objects...)
	query(mock, "schema.shared", nil)
}

// made has the lines of migrations that make an object, and the kind, table and name of the object.
// The table of a column is in an earlier line.
var made = []struct {
	line   *regexp.Regexp
	object string
}{
	{regexp.MustCompile(`^CREATE TABLE IF NOT EXISTS (\w+)`), "table $1"},
	{regexp.MustCompile(`^\t([a-z_]+) `), "column TABLE $1"},
	{regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (?:IF NOT EXISTS )?(\w+)`), "column $1 $2"},
	{regexp.MustCompile(`^ALTER TYPE (\w+) ADD VALUE IF NOT EXISTS '(\w+)'`), "value $1 $2"},
	{regexp.MustCompile(`INDEX IF NOT EXISTS (\w+) ON (\w+)`), "index $2 $1"},
	{regexp.MustCompile(`CREATE TRIGGER (\w+) BEFORE .* ON (\w+)`), "trigger $2 $1"},
}

// installed returns the migrations of a dialect, and the objects that they make.
func installed(d pgqrs.Dialect) (versions, objects []row) {
	files, globErr := fs.Glob(d.Migrations(), "*.sql")
	for _, file := range files {
		var version int64
		_, nameErr := fmt.Sscanf(file, "%d_", &version)
		text, readErr := fs.ReadFile(d.Migrations(), file)
		if err := errors.Join(globErr, nameErr, readErr); err != nil {
			panic(err) // the files are embedded
		}
		versions = append(versions, row{version, file, 1})
		table := ""
		for line := range strings.Lines(string(text)) {
			for _, m := range made {
				found := m.line.FindStringSubmatchIndex(line)
				if found == nil {
					continue
				}
				object := strings.Fields(string(m.line.ExpandString(nil, m.object, line, found)))
				if object[0] == "table" {
					table, object = object[1], append(object, "")
				}
				objects = append(objects, row{object[0], strings.Replace(object[1], "TABLE", table, 1), object[2]})
			}
		}
	}
	return versions, objects
}
