package dashboard

import (
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func TestTextsReadWell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "<1 ms", 7 * time.Millisecond: "7 ms", 1500 * time.Millisecond: "1.5 s", 59 * time.Second: "59 s",
		61 * time.Second: "1 m 01 s", 25*time.Hour + time.Minute: "1 d 01 h", math.MinInt64: "-106751 d 23 h", 3*time.Hour + 4*time.Minute: "3 h 04 m",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q; want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q; want %q", n, got, want)
		}
	}
	if n := len(printable(strings.Repeat("é", 1<<20))); n != shownText {
		t.Errorf("of a long text %d bytes are shown; want %d", n, shownText)
	}
	for in, want := range map[string]string{"a\n\tb": "a\n\tb", "\x1b[2J": `\u001b[2J`, "\xffé": `\xffé`, "\u202e\U000e0001": `\u202e\U000e0001`, "日本\u00a0": `日本\u00a0`} {
		if got := printable(in); got != want {
			t.Errorf("%q is %q; want %q", in, got, want)
		}
	}
}

// SQL may have written any text as a state.
func TestStatesOfSQLAreVisible(t *testing.T) {
	const evil, shown = "RUN\x1b[2J\u202e\n", `RUN\u001b[2J\u202e`
	for _, state := range []any{pgqrs.RunState(evil), pgqrs.MessageState(evil), pgqrs.WorkerState(evil)} {
		if got := word(state); got != shown {
			t.Errorf("%T is shown as %q; want %q", state, got, shown)
		}
	}
	if got := became(pgqrs.ScheduleRun{RunState: evil}); got != shown {
		t.Errorf("the outcome of a schedule is shown as %q; want %q", got, shown)
	}
	if got := word(pgqrs.RunState(strings.Repeat("x", 1<<20))); len(got) > 1000 {
		t.Errorf("a state is shown in %d bytes", len(got))
	}
}

func TestAFormEscapesItsName(t *testing.T) {
	for _, name := range []string{"emails", "no worker", "100%25 +1", "\x1b[2J\r\n\u202e"} {
		for _, form := range []url.Values{{"name": {name}}, {"escaped-name": {url.QueryEscape(name)}}, {"name": {"other"}, "escaped-name": {url.QueryEscape(name)}}} {
			if got := nameIn(form); got != name {
				t.Errorf("%q has the name %q; want %q", form, got, name)
			}
		}
	}
}

func TestAScheduleThatNobodyRunsIsOverdue(t *testing.T) {
	for word, info := range map[string]pgqrs.ScheduleInfo{
		"active":  {NextAt: noon.Add(-time.Minute)},
		"overdue": {NextAt: noon.Add(-time.Minute - time.Second)},
		"ended":   {},
		"paused":  {NextAt: noon.Add(-time.Hour), PausedAt: noon},
	} {
		if got := scheduleWord(info, noon); got != word {
			t.Errorf("%+v is %s; want %s", info, got, word)
		}
	}
}

func TestAnInstantIsShownInTheZoneOfItsSchedule(t *testing.T) {
	for zone, want := range map[string]string{"Europe/Berlin": "Friday 2026-01-02 13:00:00 CET", "UTC": "", "": "", "No/Where": ""} {
		if got := local(noon, zone); got != want {
			t.Errorf("in %q it is %q; want %q", zone, got, want)
		}
	}
}
