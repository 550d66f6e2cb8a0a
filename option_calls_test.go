package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"
)

// optionOf makes each option by its name.
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

// optionCalls make each call, by its name in the table, with an option.
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

// taken reports whether a call takes an option: whether a statement is sent, or a Target has no error.
func taken(t *testing.T, caller, option string) bool {
	f, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) { return nil, errors.New("enough") })
	e := newExecution(s, "w", &MessageInfo{ID: 1})
	e.id, e.lease = 1, t.Context()
	err := optionCalls[caller](t.Context(), s, &Run{execution: e}, optionOf(s, option))
	return err == nil || len(f.log()) > 0
}

// optionTable reads the lines of the table in the comment of Option.
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
