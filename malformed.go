package pgqrs

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrMalformed is matched by the error of a message or a run whose own rows do not decode, because
// something other than this library wrote them. The message goes to the dead letters, and the run
// fails, with the reason. Listings show such rows, and their Malformed field says what is wrong.
var ErrMalformed = errors.New("pgqrs: malformed row")

// maxMalformed bounds the text of a Malformed field in bytes. The text quotes values of the row.
const maxMalformed = 500

// scanLoosely scans a row whose columns have the names, which are separated by spaces. A column that
// does not decode is left at its zero value, and malformed says which and why; it is empty if all
// decode. Where all is well it costs what rows.Scan costs. It may not name the same destination twice.
func scanLoosely(rows *sql.Rows, names string, into ...any) (malformed string, err error) {
	if rows.Scan(into...) == nil {
		return "", nil
	}
	ignored := make([]any, len(into))
	for i := range ignored {
		ignored[i] = new(any)
	}
	if err := rows.Scan(ignored...); err != nil {
		return "", err // it is not a value that is wrong
	}
	var reasons []string
	for i, name := range strings.Fields(names)[:len(into)] {
		other := ignored[i]
		ignored[i] = into[i]
		if err := rows.Scan(ignored...); err != nil {
			reflect.ValueOf(into[i]).Elem().SetZero()
			reasons = append(reasons, malformedColumn(name, err))
		}
		ignored[i] = other
	}
	return joinMalformed(reasons...), nil
}

// scanRowLoosely is scanLoosely for a row that may lack its last columns; see scanRow.
func scanRowLoosely(rows *sql.Rows, names string, into ...any) (malformed string, err error) {
	if into, err = matchColumns(rows, into); err != nil {
		return "", err
	}
	return scanLoosely(rows, names, into...)
}

// durationOf is a number of microseconds as a duration, within what one can hold.
func durationOf(microseconds int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Microsecond)
	return time.Duration(min(max(microseconds, -most), most)) * time.Microsecond
}

// malformedColumn says why a column does not decode.
func malformedColumn(name string, err error) string {
	if cause := errors.Unwrap(err); cause != nil && strings.HasPrefix(err.Error(), "sql: Scan error") {
		err = cause // without the column's expression
	}
	return name + ": " + err.Error()
}

// joinMalformed joins reasons within maxMalformed, in valid UTF-8. Empty ones are left out.
func joinMalformed(reasons ...string) string {
	var all []string
	for _, reason := range reasons {
		if reason != "" {
			all = append(all, reason)
		}
	}
	text := strings.Join(all, "; ")
	if len(text) > maxMalformed {
		cut := maxMalformed
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "..."
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// malformedError is the error of a row that does not decode. What names the row.
func malformedError(what, malformed string) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, what, malformed)
}

// listedJSON returns a column of JSON as a listing shows it, and what is wrong with it. A text that
// is no JSON is shown as a JSON string, so that whoever encodes the listing does not fail.
func listedJSON(name string, raw []byte) (json.RawMessage, string) {
	if raw == nil || json.Valid(raw) {
		return raw, ""
	}
	quoted, err := json.Marshal(string(raw))
	if err != nil {
		panic(err) // a string marshals
	}
	return quoted, name + ": it is no JSON"
}

// listedWhole is listedJSON for a text of so many bytes, of which a listing may have cut off the end.
func listedWhole(name string, raw []byte, size int64) (json.RawMessage, string) {
	if int64(len(raw)) < size {
		return raw, ""
	}
	return listedJSON(name, raw)
}
