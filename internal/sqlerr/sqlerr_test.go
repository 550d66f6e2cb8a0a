package sqlerr

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// A coded is an error with a code of PostgreSQL.
type coded string

func (c coded) Error() string    { return "server says " + string(c) }
func (c coded) SQLState() string { return string(c) }

// A described is an error with a code and a text of PostgreSQL.
type described struct {
	coded
	text string
}

func (d described) Error() string { return d.text }

func TestClasses(t *testing.T) {
	for name, c := range map[string]struct {
		is        func(error) bool
		yes, nope error
	}{
		"Unreachable":    {Unreachable, coded("57P01"), coded("23505")},
		"Unreachable io": {Unreachable, fmt.Errorf("read: %w", io.EOF), errors.New("EOF")},
		"Missing":        {Missing, coded("42P01"), coded("42501")},
		"Missing text":   {Missing, errors.New("no such table: pgqrs_messages"), errors.New("no such table: mine")},
		"Missing type":   {Missing, described{"42704", `type "worker_status" does not exist`}, described{"42704", `role "worker" does not exist`}},
		"Untranslatable": {Untranslatable, coded("22P05"), coded("22003")},
		"ReadOnly":       {ReadOnly, coded("25006"), coded("25P02")},
		"Denied":         {Denied, coded("42501"), coded("42P01")},
		"NoSchema":       {NoSchema, coded("3F000"), coded("42501")},
		"Unsupported":    {Unsupported, coded("0A000"), coded("25006")},
		"Duplicate":      {Duplicate, coded("23505"), coded("23503")},
		"Locked":         {Locked, coded("55P03"), coded("40P01")},
		"LimitExceeded":  {LimitExceeded, coded("54000"), coded("53300")},
		"a failed tx":    {TransactionFailed, coded("25P02"), coded("25006")},
		"Aborted":        {Aborted, coded("23505"), coded("57P01")},
		"Aborted text":   {Aborted, errors.New("UNIQUE constraint failed: t.a"), errors.New("database is locked")},
		"NoSavepoint":    {NoSavepoint, errors.New("no such savepoint: pgqrs"), errors.New("no such table: t")},
		"NoFunction":     {NoFunction, errors.New("no such function: f"), errors.New("no such table: t")},
		"NoConcurrent":   {NoConcurrent, errors.New(`near "CONCURRENT": syntax error`), errors.New(`near "x": syntax error`)},
		"NoMVCC":         {NoMVCC, errors.New("only supported when MVCC is enabled"), errors.New("MVCC is enabled")},
		"Unprepared":     {Unprepared, coded("26000"), coded("42601")},
	} {
		if !c.is(c.yes) || c.is(c.nope) {
			t.Errorf("%s: %v is %t and %v is %t", name, c.yes, c.is(c.yes), c.nope, c.is(c.nope))
		}
	}
}
