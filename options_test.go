package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"
)

func itemsOf(t *testing.T, c Config, n int, opts ...Option) ([]enqueueRow, error) {
	t.Helper()
	_, s := newFake(t, c, SQLite, nil)
	payloads := make([]any, n)
	for i := range payloads {
		payloads[i] = i
	}
	return s.encodeRows(t.Context(), payloads, opts)
}

func TestOptionsOfAMessage(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_001)
	for _, test := range []struct {
		name string
		opts []Option
		want enqueueRow
	}{
		{"none", nil, enqueueRow{}},
		{"Delay", []Option{Delay(time.Second + time.Microsecond)}, enqueueRow{delay: 1_000_001}},
		{"the last Delay", []Option{Delay(time.Hour), Delay(time.Second)}, enqueueRow{delay: 1_000_000}},
		{"At", []Option{At(at)}, enqueueRow{dueAt: at.UnixMicro()}},
		{"At in another zone", []Option{At(at.In(time.FixedZone("", 7200)))}, enqueueRow{dueAt: at.UnixMicro()}},
		{"At the zero time", []Option{At(time.Time{})}, enqueueRow{dueAt: int64(0)}},
		{"At with no Delay", []Option{At(at), Delay(0)}, enqueueRow{dueAt: at.UnixMicro()}},
		{"Priority", []Option{Priority(-1)}, enqueueRow{priority: -1}},
		{"Key", []Option{Key("k")}, enqueueRow{key: "k"}},
		{"Unique", []Option{Unique("k")}, enqueueRow{key: "k", unique: true}},
		{"Key after Unique", []Option{Unique("a"), Key("b")}, enqueueRow{key: "b"}},
		{"Headers", []Option{Headers(map[string]string{"a": "1", "b": "2"}), Headers(map[string]string{"b": "3"})}, enqueueRow{headers: `{"a":"1","b":"3"}`}},
		{"no Headers", []Option{Headers(nil)}, enqueueRow{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := itemsOf(t, Config{}, 1, test.opts...)
			test.want.payload = "0"
			if err != nil || !reflect.DeepEqual(got, []enqueueRow{test.want}) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, test := range []struct {
		text string
		opts []Option
	}{
		{"negative delay -1s", []Option{Delay(-time.Second)}},
		{"negative delay -1s", []Option{Delay(-time.Second), Delay(time.Second)}},
		{"both Delay and At", []Option{Delay(time.Second), At(time.Now())}},
		{"is after 9999-12-31", []Option{At(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}},
		{"is after 9999-12-31", []Option{At(time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC))}},
		{"priority 3 is not between -1 and 2", []Option{Priority(3)}},
		{"priority -2 is not between -1 and 2", []Option{Priority(-2)}},
		{"empty key", []Option{Key("")}},
		{"empty key", []Option{Unique("")}},
		{"has more than 255 characters", []Option{Key(strings.Repeat("k", 256))}},
		{"invalid payload: headers", []Option{Headers(map[string]string{"a": "\x00"})}},
	} {
		if _, err := itemsOf(t, Config{}, 1, test.opts...); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("got %v, want %s", err, test.text)
		}
	}
}

func TestEachComesOnTopOfTheBatch(t *testing.T) {
	headers := map[string]string{"batch": "1"}
	got, err := itemsOf(t, Config{}, 3, Priority(1), Headers(headers), Each(func(i int) []Option {
		return [][]Option{nil, {Headers(map[string]string{"item": "1"}), Key("k1")}, {Priority(2), Delay(time.Second)}}[i]
	}))
	want := []enqueueRow{
		{payload: "0", priority: 1, headers: `{"batch":"1"}`},
		{payload: "1", priority: 1, key: "k1", headers: `{"batch":"1","item":"1"}`},
		{payload: "2", priority: 2, delay: 1_000_000, headers: `{"batch":"1"}`},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if len(headers) != 1 {
		t.Errorf("the caller's headers became %v", headers)
	}
}

func TestErrorsOfABatchNameTheItem(t *testing.T) {
	_, err := itemsOf(t, Config{}, 3, Each(func(i int) []Option { return []Option{Priority(i + 1)} }))
	if err == nil || !strings.Contains(err.Error(), "item 2: priority 3") {
		t.Error(err)
	}
	_, err = itemsOf(t, Config{}, 3, Delay(time.Second), Each(func(i int) []Option { return []Option{At(time.Now())} }))
	if err == nil || !strings.Contains(err.Error(), "item 0: both Delay and At") {
		t.Error(err)
	}
}

func TestHeadersOptionWinsOverTheStores(t *testing.T) {
	type trace struct{}
	config := Config{Headers: func(ctx context.Context) map[string]string {
		return map[string]string{"trace": fmt.Sprint(ctx.Value(trace{})), "app": "shop"}
	}}
	_, s := newFake(t, config, SQLite, nil)
	ctx := context.WithValue(t.Context(), trace{}, "t-1")
	got, err := s.encodeRows(ctx, []any{0}, []Option{Headers(map[string]string{"app": "till"})})
	if want := `{"app":"till","trace":"t-1"}`; err != nil || got[0].headers != want {
		t.Errorf("got %v, %v; want %s", got[0].headers, err, want)
	}
}

// optionOf returns an option by its name.
func optionOf(s *Store, name string) Option {
	switch name {
	case "Delay":
		return Delay(time.Second)
	case "At":
		return At(time.UnixMilli(1))
	case "Priority":
		return Priority(1)
	case "Headers":
		return Headers(map[string]string{"a": "b"})
	case "Group":
		return Group("g")
	case "Key":
		return Key("k")
	case "Unique":
		return Unique("k")
	case "Each":
		return Each(func(int) []Option { return nil })
	case "Then":
		return Then(NewQueue[int](s, "after"), 1)
	}
	return nil
}

// optionCalls are the calls by their names in the table. Each makes the call with an option.
var optionCalls = map[string]func(context.Context, *Store, *Run, Option) error{
	"Queue.Enqueue": func(ctx context.Context, s *Store, _ *Run, o Option) error {
		_, err := NewQueue[int](s, "q").Enqueue(ctx, 1, o)
		return err
	},
	"EnqueueBatch": func(ctx context.Context, s *Store, _ *Run, o Option) error {
		_, err := NewQueue[int](s, "q").EnqueueBatch(ctx, []int{1, 2}, o)
		return err
	},
	"Each": func(ctx context.Context, s *Store, _ *Run, o Option) error {
		_, err := NewQueue[int](s, "q").EnqueueBatch(ctx, []int{1, 2}, Each(func(int) []Option { return []Option{o} }))
		return err
	},
	"Then": func(ctx context.Context, s *Store, _ *Run, o Option) error {
		_, err := NewQueue[int](s, "q").EnqueueBatch(ctx, []int{1, 2}, Then(NewQueue[int](s, "after"), 1, o))
		return err
	},
	"Queue.Target": func(_ context.Context, s *Store, _ *Run, o Option) error {
		return NewQueue[int](s, "q").Target(1, o).err
	},
	"Workflow.Target": func(_ context.Context, s *Store, _ *Run, o Option) error {
		return NewWorkflow[int, int](s, "w").Target(1, o).err
	},
	"Workflow.Start": func(ctx context.Context, s *Store, _ *Run, o Option) error {
		_, err := NewWorkflow[int, int](s, "w").Start(ctx, 1, o)
		return err
	},
	"Child": func(ctx context.Context, s *Store, run *Run, o Option) error {
		_, err := NewWorkflow[int, int](s, "w").Child(ctx, run, "kid", 1, o)
		return err
	},
	"Children": func(ctx context.Context, s *Store, run *Run, o Option) error {
		_, err := NewWorkflow[int, int](s, "w").Children(ctx, run, "kids", []int{1, 2}, o)
		return err
	},
}

// taken reports whether a call accepts an option: it sends a statement, or its Target has no error.
func taken(t *testing.T, caller, option string) bool {
	f, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) { return nil, errors.New("enough") })
	e := s.newExecution("w", &MessageInfo{ID: 1})
	e.id, e.lease = 1, t.Context()
	err := optionCalls[caller](t.Context(), s, &Run{execution: e}, optionOf(s, option))
	return err == nil || len(f.log()) > 0
}

// optionTable reads the table in the comment of Option.
func optionTable(t *testing.T) (head []string, lines []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, decl := range file.Decls {
		if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE && d.Specs[0].(*ast.TypeSpec).Name.Name == "Option" {
			text = d.Doc.Text()
		}
	}
	for line := range strings.Lines(text) {
		if table, ok := strings.CutPrefix(line, "\t"); ok {
			lines = append(lines, strings.TrimRight(table, "\n"))
		}
	}
	if len(lines) == 0 {
		t.Fatal("the comment of Option has no table")
	}
	return strings.FieldsFunc(strings.ReplaceAll(strings.TrimSpace(lines[0]), "  ", "\n"), func(r rune) bool { return r == '\n' }), lines[1:]
}

func TestTheTableOfOptions(t *testing.T) {
	head, lines := optionTable(t)
	if len(lines) != len(optionCalls) {
		t.Errorf("the table has %d calls; want %d", len(lines), len(optionCalls))
	}
	seen := 0
	for _, line := range lines {
		cells := strings.Fields(line)
		call := cells[0]
		if optionCalls[call] == nil || len(cells) != len(head)+1 {
			t.Fatalf("the line %q is not a known call with %d cells", line, len(head))
		}
		for i, names := range head {
			for _, option := range strings.Split(strings.TrimSpace(names), ", ") {
				seen++
				if got, want := taken(t, call, option), cells[i+1] == "x"; got != want {
					t.Errorf("%s takes %s: %v; the table says %v", call, option, got, want)
				}
			}
		}
	}
	if seen != 9*len(optionCalls) {
		t.Errorf("the table has %d pairs; want %d", seen, 9*len(optionCalls))
	}
}
