package pgqrs

import (
	"encoding/json"
	"errors"
	"reflect"
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
	} {
		got := timestamp{time.Now()}
		if err := got.Scan(test.src); err != nil || got.Time != test.want {
			t.Errorf("%v: got %v, %v; want %v", test.src, got.Time, err, test.want)
		}
	}
	for _, bad := range []any{"", "yesterday", "2026-11-22T13:06:01Z", []byte("2026-11-22"), int64(1), 1.5, true} {
		var got timestamp
		if err := got.Scan(bad); err == nil {
			t.Errorf("%v: got %v, want an error", bad, got)
		}
	}
}

func TestPayloadThatDoesNotDecodeSaysSo(t *testing.T) {
	info := &MessageInfo{ID: 7, Raw: json.RawMessage(`{"To":1}`)}
	_, err := newMessage[struct{ To string }](info)
	var cause *json.UnmarshalTypeError
	if !errors.Is(err, ErrInvalidPayload) || !errors.As(err, &cause) {
		t.Error(err)
	}
	raw, err := newMessage[json.RawMessage](info)
	if err != nil || string(raw.Payload) != `{"To":1}` {
		t.Errorf("as it is: %s, %v", raw.Payload, err)
	}
	if !reflect.DeepEqual(raw.MessageInfo, *info) {
		t.Errorf("got %+v, want %+v", raw.MessageInfo, *info)
	}
}
