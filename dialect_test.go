package pgqrs

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// textsOf returns a dialect's statements by their path, such as "message.enqueue",
// "message.list[ready]" or "queue.drop[0]".
func textsOf(d *dialect) map[string]string {
	texts := map[string]string{}
	groups := reflect.ValueOf(d).Elem()
	for i := range groups.NumField() {
		name := groups.Type().Field(i).Name
		if name == "errors" || name == "transaction" { // their texts have no tag, or one without a group
			continue
		}
		if group := groups.Field(i); group.Kind() == reflect.Struct {
			for j := range group.NumField() {
				path := name + "." + group.Type().Field(j).Name
				addTexts(texts, path, group.Field(j))
			}
		}
	}
	return texts
}

// addTexts adds the contents of one field: a text, a list of texts, or a text for each state.
func addTexts(texts map[string]string, path string, field reflect.Value) {
	switch field.Kind() {
	case reflect.String:
		if field.String() == "" && differs.MatchString(path) {
			return
		}
		texts[path] = field.String()
	case reflect.Slice:
		for i := range field.Len() {
			texts[fmt.Sprintf("%s[%d]", path, i)] = field.Index(i).String()
		}
	case reflect.Map:
		for _, key := range field.MapKeys() {
			texts[fmt.Sprintf("%s[%s]", path, key)] = field.MapIndex(key).String()
		}
	default:
		panic("a dialect holds a " + field.Type().String())
	}
}

var tagged = regexp.MustCompile(`^/\* (pgqrs:[a-z]+\.[a-z_]+) \*/\s`)

// tagOf returns the tag that a statement begins with, or "".
func tagOf(text string) string {
	if found := tagged.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// inlineTags are the tags of the statements outside the dialects' structs.
var inlineTags = []string{"pgqrs:begin", "pgqrs:open", "pgqrs:ask", "pgqrs:session.id", "pgqrs:savepoint", "pgqrs:release", "pgqrs:commit", "pgqrs:rollback", "pgqrs:schema.mvcc", "pgqrs:message.spread_claim"}

// allTags returns every tag that the library sends, sorted.
func allTags() []string {
	tags := slices.Clone(inlineTags)
	for _, d := range dialects {
		for _, text := range textsOf(d) {
			tags = append(tags, tagOf(text))
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// placeholders counts a text's arguments. It returns an error if they are not written as the
// dialect writes them. No text has a ? or $1 in a literal.
func placeholders(d Dialect, text string) (int, error) {
	dollars := regexp.MustCompile(`\$\d+`).FindAllString(text, -1)
	marks := regexp.MustCompile(`\?\d*`).FindAllString(text, -1)
	if d == Postgres {
		for i, p := range dollars {
			if p != "$"+strconv.Itoa(i+1) {
				return 0, fmt.Errorf("placeholder %d is %s; they ascend from $1, each once", i+1, p)
			}
		}
		if len(marks) > 0 {
			return 0, fmt.Errorf("a ?, which is no placeholder on PostgreSQL")
		}
		return len(dollars), nil
	}
	for _, p := range marks {
		if p != "?" {
			return 0, fmt.Errorf("placeholder %s; only a bare ? binds alike on all drivers", p)
		}
	}
	if len(dollars) > 0 {
		return 0, fmt.Errorf("placeholder %s; $1 misbinds on most SQLite drivers", dollars[0])
	}
	return len(marks), nil
}

func eachText(t *testing.T, check func(t *testing.T, d Dialect, path, text string)) {
	t.Helper()
	for d, def := range dialects {
		for path, text := range textsOf(def) {
			check(t, d, path, text)
		}
	}
}

func TestDialectsHaveEveryStatement(t *testing.T) {
	eachText(t, func(t *testing.T, d Dialect, path, text string) {
		if tagOf(text) == "" {
			t.Errorf("%s: %s does not begin with a tag: %.60q", d, path, text)
		}
		if strings.TrimSpace(tagged.ReplaceAllString(text, "")) == "" {
			t.Errorf("%s: %s has no text", d, path)
		}
	})
	for d, def := range dialects {
		if !strings.HasPrefix(def.transaction.begin, "/* pgqrs:begin */ BEGIN") {
			t.Errorf("%s: begin is %q", d, def.transaction.begin)
		}
		if c := def.transaction.concurrent; c != "" && !strings.HasPrefix(c, "/* pgqrs:begin */ BEGIN") {
			t.Errorf("%s: concurrent is %q", d, c)
		}
		if n := len(textsOf(def)); n < 75 {
			t.Errorf("%s: only %d statements were found; textsOf has gone blind", d, n)
		}
	}
}

// differs matches the lists that are longer on one dialect than on another:
//
//   - PostgreSQL drops several tables by one statement, and SQLite cannot.
//   - pgqrs 0.15 has an index for producers on PostgreSQL only.
//   - The settings differ, and only PostgreSQL has privileges and schemas.
//   - Turso saves an existing step by another statement, and keeps enqueuers out by two.
//   - PostgreSQL starts a run and its message by one statement, and ends them by one.
//   - PostgreSQL claims from a position, and lists the messages before it.
var differs = regexp.MustCompile(`^(schema\.(exists|make|drop\[\d+\]|joinInterop\[\d+\]|settings\[\w+\]|rights\[0\]|turso\[0\])|queue\.freeze\[1\]|step\.(save|saveBatch|open)\[1\]|workflow\.(start|end)\[0\]|lease\.(nextClaim|skipped))$`)

func TestDialectsAgreeOnTagsAndArguments(t *testing.T) {
	shape := func(d Dialect) map[string]string {
		shapes := map[string]string{}
		texts := textsOf(dialects[d])
		for path, text := range texts {
			n, err := placeholders(d, text)
			if err != nil {
				t.Errorf("%s: %s: %v", d, path, err)
			}
			if !differs.MatchString(path) {
				shapes[path] = fmt.Sprintf("%s, %d arguments", tagOf(text), n)
				continue
			}
			if strings.HasPrefix(path, "workflow.") || strings.HasPrefix(path, "lease.") || !strings.Contains(path, "[") {
				continue // no other dialect has it
			}
			want := 0
			if first, isSecond := strings.CutSuffix(path, "[1]"); isSecond {
				want, _ = placeholders(d, texts[first+"[0]"])
			}
			if n != want {
				t.Errorf("%s: %s takes %d arguments; want %d, so that its list may be of another length", d, path, n, want)
			}
		}
		return shapes
	}
	want := shape(Postgres)
	for _, d := range []Dialect{SQLite, Turso} {
		got := shape(d)
		for _, path := range slices.Sorted(maps.Keys(want)) {
			if got[path] != want[path] {
				t.Errorf("%s: %s is %q; on postgres it is %q", d, path, got[path], want[path])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s has %d statements, postgres %d", d, len(got), len(want))
		}
	}
}

// Users expect a statement by its tag. The package sqlmock takes the tag for a regular expression
// and searches the whole statement for it. It must match one statement only.
func TestTagsFindOneStatementEach(t *testing.T) {
	for d, def := range dialects {
		texts := slices.Collect(maps.Values(textsOf(def)))
		texts = append(texts, def.transaction.begin, def.transaction.open, def.transaction.commit, def.transaction.rollback)
		for _, tag := range allTags() {
			var found []string
			for _, text := range texts {
				if regexp.MustCompile(tag).MatchString(text) {
					found = append(found, text)
				}
			}
			if len(found) > 1 {
				t.Errorf("%s: %s finds %d statements: %.60q", d, tag, len(found), found)
			}
		}
	}
}

// qualifiedByHand does the work of qualify word by word. It puts a schema before every name of a
// table or type, and changes nothing else.
func qualifiedByHand(text, schema string) string {
	names := strings.Fields(`pgqrs_migrations pgqrs_queues pgqrs_workers pgqrs_messages pgqrs_workflows
		pgqrs_workflow_runs pgqrs_workflow_steps pgqrs_workflow_signals pgqrs_schedules pgqrs_schedule_runs pgqrs_groups worker_status pgqrs_workflow_status
		_sqlx_migrations pgqrs_schema_version`) // the last two are pgqrs 0.15's own
	var out strings.Builder
	for len(text) > 0 {
		n := strings.IndexFunc(text, func(r rune) bool { return !isWord(r) })
		if n < 0 {
			n = len(text)
		}
		if slices.Contains(names, text[:n]) {
			out.WriteString(`"` + schema + `".`)
		}
		out.WriteString(text[:min(n+1, len(text))])
		text = text[min(n+1, len(text)):]
	}
	return out.String()
}

func isWord(r rune) bool {
	return r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func TestSchemaGoesBeforeTablesAndTypesOnly(t *testing.T) {
	texts := slices.Collect(maps.Values(textsOf(&postgres)))
	known, err := postgres.all()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range known {
		texts = append(texts, m.statements...)
	}
	for _, schema := range []string{"app", "My_Schema", "a$1b", "_$$"} {
		changed := 0
		for _, text := range texts {
			got, want := qualify(text, schema), qualifiedByHand(text, schema)
			if got != want {
				t.Errorf("schema %s:\n got %s\nwant %s", schema, got, want)
			}
			if tagOf(got) != tagOf(text) {
				t.Errorf("schema %s changes the tag %s to %s", schema, tagOf(text), tagOf(got))
			}
			if got != text {
				changed++
			}
		}
		if changed < 80 {
			t.Errorf("schema %s: only %d statements were qualified", schema, changed)
		}
	}
}

func TestSchemaLeavesOtherNamesAlone(t *testing.T) {
	for _, text := range []string{
		"/* pgqrs:message.claim */ SELECT id",
		"CREATE INDEX pgqrs_messages_ready_idx",
		"SELECT consumer_worker_id, status FROM other_worker_status",
		"SELECT mypgqrs_queues.id",
	} {
		if got := qualify(text, "app"); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got, want := qualify("SELECT 'x'::worker_status FROM pgqrs_workers", "app"), `SELECT 'x'::"app".worker_status FROM "app".pgqrs_workers`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSchemaNamesArePlainIdentifiers(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, good := range []string{"a", "_", "app", "App_1", "a$b", long} {
		if !schemaNames.MatchString(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", "1a", "$a", "a-b", "a b", `a"b`, "a.b", "a;b", "ä", "a\n", long + "a"} {
		if schemaNames.MatchString(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestDepthsCountsAsFarAsItSays(t *testing.T) {
	for d, def := range dialects {
		if n := strings.Count(def.queue.depth, "LIMIT "+strconv.Itoa(DepthLimit)+")"); n < 5 {
			t.Errorf("%s: %d of the five counts end at %d", d, n, DepthLimit)
		}
	}
}
