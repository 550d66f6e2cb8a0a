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

func TestClasses(t *testing.T) {
	for name, c := range map[string]struct {
		is        func(error) bool
		yes, nope error
	}{
		"Unreachable":    {Unreachable, coded("57P01"), coded("23505")},
		"Unreachable io": {Unreachable, fmt.Errorf("read: %w", io.EOF), errors.New("EOF")},
		"Missing":        {Missing, coded("42P01"), coded("42501")},
		"Missing text":   {Missing, errors.New("no such table: pgqrs_messages"), errors.New("no such table: mine")},
		"Untranslatable": {Untranslatable, coded("22P05"), coded("22003")},
		"Unprepared":     {Unprepared, coded("26000"), coded("42601")},
	} {
		if !c.is(c.yes) || c.is(c.nope) {
			t.Errorf("%s: %v is %t and %v is %t", name, c.yes, c.is(c.yes), c.nope, c.is(c.nope))
		}
	}
}
