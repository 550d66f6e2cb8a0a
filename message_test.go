package pgqrs

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
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

// Each row's JSON is in memory of its own, whatever the driver does with its own memory later.
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
