package pgqrs

import (
	"database/sql"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/DATA-DOG/go-sqlmock"
)

func TestTimestampsOfAllDrivers(t *testing.T) {
	whole := time.Date(2026, 11, 22, 13, 6, 1, 0, time.UTC)
	for _, test := range []struct {
		src  any
		want time.Time
	}{
		{nil, time.Time{}},
		{whole.In(time.FixedZone("", -3600)), whole},
		{"2026-11-22 13:06:01", whole},
		{"2026-11-22 13:06:01.123", whole.Add(123 * time.Millisecond)},
		{[]byte("2026-11-22 13:06:01.123456"), whole.Add(123456 * time.Microsecond)},
		{whole.UnixMicro(), whole},
		{int64(-1), time.UnixMicro(-1).UTC()},
	} {
		got := timestamp{time.Now()}
		if err := got.Scan(test.src); err != nil || got.Time != test.want {
			t.Errorf("%v: got %v, %v; want %v", test.src, got.Time, err, test.want)
		}
	}
	for _, bad := range []any{"", "yesterday", "2026-11-22T13:06:01Z", []byte("2026-11-22"), 1.5, true} {
		var got timestamp
		if err := got.Scan(bad); err == nil {
			t.Errorf("%v: got %v, want an error", bad, got)
		}
	}
}

// Each row's JSON has memory of its own, even if the driver reuses its memory later.
func TestJSONColumn_KeepsEarlierRows(t *testing.T) {
	var column jsonColumn
	memory := []byte(`{"n":1}`)
	for _, src := range []any{memory, `{"n":1}`} {
		if err := column.Scan(src); err != nil {
			t.Fatal(err)
		}
		first := column
		copy(memory, `{"n":2}`)
		if err := column.Scan(memory); err != nil {
			t.Fatal(err)
		}
		copy(memory, `{"n":3}`)
		if string(first) != `{"n":1}` || string(column) != `{"n":2}` {
			t.Errorf("after another row the first is %s and the second %s", first, column)
		}
		copy(memory, `{"n":1}`)
	}
	if err := column.Scan(nil); err != nil || column != nil {
		t.Errorf("NULL became %q, %v", column, err)
	}
	if err := column.Scan(1.5); err == nil {
		t.Error("a number was scanned as JSON")
	}
}

func TestPayloadThatDoesNotDecodeSaysSo(t *testing.T) {
	info := &MessageInfo{ID: 7, Raw: json.RawMessage(`{"To":1}`)}
	_, err := newMessage[struct{ To string }](&Config{}, info)
	var cause *json.UnmarshalTypeError
	if !errors.Is(err, ErrInvalidPayload) || !errors.As(err, &cause) {
		t.Error(err)
	}
	if _, err := newMessage[struct{ Cc int }](&Config{StrictPayloads: true}, info); !errors.Is(err, ErrInvalidPayload) || !strings.Contains(err.Error(), `unknown field "To"`) {
		t.Error(err)
	}
	if _, err := newMessage[struct{ Cc, To int }](&Config{StrictPayloads: true}, info); err != nil {
		t.Error(err)
	}
	raw, err := newMessage[json.RawMessage](&Config{}, info)
	if err != nil || string(raw.Payload) != `{"To":1}` {
		t.Errorf("as it is: %s, %v", raw.Payload, err)
	}
	if !reflect.DeepEqual(raw.MessageInfo, *info) {
		t.Errorf("got %+v, want %+v", raw.MessageInfo, *info)
	}
}

// scanned returns the result of scanLoosely for rows, and its error for each row.
func scanned(t *testing.T, rows *sqlmock.Rows, names string, into func() []any) (said []string) {
	t.Helper()
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mock.ExpectQuery("x").WillReturnRows(rows)
	found, err := db.Query("x")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		malformed, err := scanLoosely(found, names, into()...)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, malformed)
	}
	return said
}

func TestMalformedColumnsAreZero(t *testing.T) {
	var n int64
	var at timestamp
	var text sql.NullInt64
	said := scanned(t, sqlmock.NewRows([]string{"a", "b", "c"}).AddRow(7, "2026-01-02 03:04:05", 8).AddRow("x", "yesterday", "y"), "n at text",
		func() []any { return []any{&n, &at, &text} })
	if len(said) != 2 || said[0] != "" {
		t.Fatalf("the rows are %q", said)
	}
	if n != 0 || !at.IsZero() || text.Valid {
		t.Errorf("the second row is %d, %v, %v", n, at, text)
	}
	for _, part := range []string{"n: converting", `at: "yesterday" is no time`, "text: converting"} {
		if !strings.Contains(said[1], part) {
			t.Errorf("%q lacks %q", said[1], part)
		}
	}
}

func TestWhatIsMalformedIsBounded(t *testing.T) {
	var n int64
	said := scanned(t, sqlmock.NewRows([]string{"a"}).AddRow(strings.Repeat("\xff\x00ä", 1<<20)), "n", func() []any { return []any{&n} })
	if len(said) != 1 || len(said[0]) > 3*maxMalformed || !utf8.ValidString(said[0]) || strings.Contains(said[0], "\x00") {
		t.Errorf("the row is %.200q..., %d bytes", said, len(said[0]))
	}
}

func TestRowsWithOtherColumnsAreErrors(t *testing.T) {
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mock.ExpectQuery("x").WillReturnRows(sqlmock.NewRows([]string{"a", "b"}).AddRow(1, 2))
	rows, err := db.Query("x")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if malformed, err := scanLoosely(rows, "n", &n); err == nil {
			t.Errorf("a row of two columns into one destination is malformed by %q, and no error", malformed)
		}
	}
}

func TestCursorsComeBack(t *testing.T) {
	for _, sorted := range []string{"2026-01-02 03:04:05.678", "2026-01-02 03:04:05.678901Z", "-infinity", "", "a/b", "~x", "\xff\x00", "294276-12-31 23:59:59Z"} {
		got, id, ok := parseCursor(cursorOf(sorted, 7))
		if got != sorted || id != 7 || !ok {
			t.Errorf("%q comes back as %q, %d, %v", sorted, got, id, ok)
		}
	}
	for _, bad := range []string{"", "x", "x/7", "2026-01-02 03:04:05", "2026-01-02 03:04:05/x", "~!/7", "infinity/7"} {
		if _, _, ok := parseCursor(bad); ok {
			t.Errorf("%q is a cursor", bad)
		}
	}
}

func TestListedJSONIsJSON(t *testing.T) {
	for raw, ok := range map[string]bool{`{"a":1}`: true, `null`: true, ``: false, `{`: false, "\xff": false} {
		shown, malformed := listedJSON("payload", []byte(raw))
		if ok != (malformed == "") || !json.Valid(shown) {
			t.Errorf("%q is shown as %q, with %q", raw, shown, malformed)
		}
	}
	if shown, malformed := listedJSON("payload", nil); shown != nil || malformed != "" {
		t.Errorf("NULL is shown as %q, with %q", shown, malformed)
	}
}

func TestDurationsHaveAnEnd(t *testing.T) {
	for microseconds, want := range map[int64]time.Duration{
		5: 5 * time.Microsecond, -5: -5 * time.Microsecond, 1<<63 - 1: (1<<63 - 1) / 1000 * 1000, -1 << 63: -(1<<63 - 1) / 1000 * 1000,
	} {
		if got := durationOf(microseconds); got != want {
			t.Errorf("%d is %v, want %v", microseconds, got, want)
		}
	}
}

func TestInfiniteTimesAreZero(t *testing.T) {
	for _, text := range []string{"infinity", "-infinity"} {
		at := timestamp{time.Now()}
		if err := at.Scan(text); err != nil || !at.IsZero() {
			t.Errorf("%s is %v, %v", text, at, err)
		}
	}
}

// Whoever writes rows by SQL may write headers that look like the library's own.
func TestForgedHeadersAreBounded(t *testing.T) {
	forged := messageRow{headers: jsonColumn(`{"pgqrs-group": "` + strings.Repeat("x", 256) + `", "a": "b"}`)}
	var m MessageInfo
	forged.fill(&m)
	if m.Group != "" || m.Malformed != "" || len(m.Headers) != 1 || m.Headers["a"] != "b" {
		t.Errorf("the message has the group %.20q and the headers %v: %s", m.Group, m.Headers, m.Malformed)
	}
	large := messageRow{headers: jsonColumn(`{"a": "` + strings.Repeat("x", maxStoredHeaders) + `"}`)}
	m = MessageInfo{}
	large.fill(&m)
	if m.Headers != nil || m.Malformed != "headers: 262153 bytes of JSON, 262144 allowed" {
		t.Errorf("the message has %d headers: %s", len(m.Headers), m.Malformed)
	}
}
