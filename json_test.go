package pgqrs_test

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// infos are pointers to the zero values of the structs that describe things.
var infos = []any{new(pgqrs.MessageInfo), new(pgqrs.Message[int]), new(pgqrs.BatchResult), new(pgqrs.QueueInfo), new(pgqrs.QueueDepth), new(pgqrs.PolicyInfo),
	new(pgqrs.Rate), new(pgqrs.WorkerInfo), new(pgqrs.RunInfo), new(pgqrs.StepInfo), new(pgqrs.ScheduleInfo), new(pgqrs.ScheduleRun), new(pgqrs.Report)}

// set gives every exported field a value that is not zero. A duration is 1.5 s, a time is in 2026,
// and a JSON text is cut.
func set(v reflect.Value) {
	switch into := v.Addr().Interface().(type) {
	case *time.Duration:
		*into = 1500 * time.Millisecond
	case *time.Time:
		*into = time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	case *json.RawMessage:
		*into = json.RawMessage(`{"a": "<`)
	default:
		setKind(v)
	}
}

func setKind(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				set(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"trace": "on"}))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetInt(7)
	}
}

// fieldsOf counts the exported fields of a struct and of its embedded structs. An outer field hides
// an inner field of the same JSON name.
func fieldsOf(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Anonymous:
			for name := range fieldsOf(f.Type) {
				names[name] = true
			}
		case f.IsExported():
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" {
				name = f.Name
			}
			names[name] = true
		}
	}
	return names
}

func object(t *testing.T, v any) map[string]json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%T: %v", v, err)
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatalf("%T: %v in %s", v, err, raw)
	}
	return o
}

var snakeCase = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)

func TestInfosMarshalEveryField(t *testing.T) {
	for _, info := range infos {
		v := reflect.ValueOf(info).Elem()
		zero := object(t, v.Interface())
		for name, raw := range zero {
			if strings.HasSuffix(name, "_at") || string(raw) == `"0001-01-01T00:00:00Z"` {
				t.Errorf("%T with zero times has %s: %s", info, name, raw)
			}
		}
		set(v)
		o := object(t, v.Interface())
		if want := fieldsOf(v.Type()); len(o) != len(want) {
			t.Errorf("%T has %d fields in JSON, %v; want the %d of %v", info, len(o), o, len(want), want)
		}
		for name, raw := range o {
			switch {
			case !snakeCase.MatchString(name):
				t.Errorf("%T has the name %q", info, name)
			case strings.HasSuffix(name, "_seconds") != (string(raw) == "1.5"):
				t.Errorf("%T has %s: %s; durations are in seconds, and have that in their names", info, name, raw)
			}
		}
	}
}

func TestACutTextIsAStringInJSON(t *testing.T) {
	for name, v := range map[string]any{
		"payload": pgqrs.MessageInfo{Raw: []byte(`{"a": "b`), Cut: true},
		"input":   pgqrs.RunInfo{Input: []byte(`{"a": "b`), Cut: true},
		"output":  pgqrs.StepInfo{Output: []byte(`{"a": "b`), Cut: true},
	} {
		if got := string(object(t, v)[name]); got != `"{\"a\": \"b"` {
			t.Errorf("%s is %s", name, got)
		}
	}
	whole := object(t, pgqrs.ScheduleInfo{Payload: []byte(`{"a":1}`), PayloadSize: 7})
	if got := string(whole["payload"]); got != `{"a":1}` || whole["payload_size"] != nil {
		t.Errorf("a whole payload is %s, with the size %s", got, whole["payload_size"])
	}
}

func TestAMessageMarshalsItsDecodedPayload(t *testing.T) {
	m := pgqrs.Message[email]{MessageInfo: pgqrs.MessageInfo{ID: 7, State: pgqrs.Leased, Raw: []byte(`{"to":"raw"}`)}, Payload: email{To: "ada"}}
	o := object(t, m)
	if id, payload := string(o["id"]), string(o["payload"]); id != "7" || !strings.Contains(payload, "ada") {
		t.Errorf("id %s, payload %s", id, payload)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back pgqrs.Message[email]
	if err := json.Unmarshal(raw, &back); err != nil || back.ID != 7 || back.State != pgqrs.Leased || back.Payload != m.Payload {
		t.Errorf("read back: %+v, %v", back, err)
	}
}
