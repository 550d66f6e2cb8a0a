package cronpgqrs

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func in(t testing.TB, zone string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// following returns n instants after a wall-clock time of a zone, as the zone's clocks show them.
func following(t *testing.T, text, zone, after string, n int) []string {
	t.Helper()
	rule, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", after, in(t, zone))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for range n {
		at = rule.Next(at)
		list = append(list, at.Format("01-02 15:04 MST"))
	}
	return list
}

func TestInstants(t *testing.T) {
	for _, c := range []struct{ name, text, zone, after, want string }{
		{"every day", "30 2 * * *", "UTC", "2026-11-22 02:30", "11-23 02:30 UTC, 11-24 02:30 UTC"},
		{"with seconds", "15 30 2 * * *", "UTC", "2026-11-22 00:00", "11-22 02:30 UTC, 11-23 02:30 UTC"},
		{"either of two days", "0 0 1 * MON", "UTC", "2026-11-28 00:00", "11-30 00:00 UTC, 12-01 00:00 UTC"},
		{"a descriptor", "@monthly", "UTC", "2026-11-28 00:00", "12-01 00:00 UTC, 01-01 00:00 UTC"},
		{"an interval", "@every 6h", "UTC", "2026-11-22 01:00", "11-22 06:00 UTC, 11-22 12:00 UTC"},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-11-22 00:00", "02-29 00:00 UTC, 02-29 00:00 UTC"},
		{"a zone of its own", "TZ=Asia/Tokyo 0 6 * * *", "UTC", "2026-11-22 00:00", "11-23 06:00 JST, 11-24 06:00 JST"},

		{"in the hour that is left out", "30 2 * * *", "Europe/Berlin", "2026-03-28 03:00", "03-29 03:00 CEST, 03-30 02:30 CEST"},
		{"several in the hour that is left out", "0,15,30 2 * * *", "Europe/Berlin", "2026-03-28 03:00", "03-29 03:00 CEST, 03-30 02:00 CEST"},
		{"at the end of the hour that is left out too", "0,30 2,3 * * *", "Europe/Berlin", "2026-03-28 04:00", "03-29 03:00 CEST, 03-29 03:30 CEST, 03-30 02:00 CEST"},
		{"in the hour that comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24 03:00", "10-25 02:30 CEST, 10-26 02:30 CET"},
		{"several in the hour that comes twice", "0,30 2 * * *", "Europe/Berlin", "2026-10-24 03:00", "10-25 02:00 CEST, 10-25 02:30 CEST, 10-26 02:00 CET"},
		{"each hour, of which one is left out", "0 * * * *", "Europe/Berlin", "2026-03-29 00:30", "03-29 01:00 CET, 03-29 03:00 CEST, 03-29 04:00 CEST"},
		{"each hour, of which one comes twice", "0 * * * *", "Europe/Berlin", "2026-10-25 01:30", "10-25 02:00 CEST, 10-25 02:00 CET, 10-25 03:00 CET"},
		{"all hours by name", "0 0-23 * * *", "Europe/Berlin", "2026-10-25 01:30", "10-25 02:00 CEST, 10-25 02:00 CET, 10-25 03:00 CET"},
		{"each half hour, of which two come twice", "*/30 * * * *", "Europe/Berlin", "2026-10-25 01:30", "10-25 02:00 CEST, 10-25 02:30 CEST, 10-25 02:00 CET, 10-25 02:30 CET, 10-25 03:00 CET"},
		{"a midnight that is left out", "0 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00", "11-04 01:00 -02, 11-05 00:00 -02"},
		{"a change of half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", "10-04 02:30 +11, 10-05 02:15 +11"},
		{"a half hour that comes twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", "04-05 01:45 +11, 04-06 01:45 +1030"},
	} {
		want := strings.Split(c.want, ", ")
		if got := following(t, c.text, c.zone, c.after, len(want)); strings.Join(got, ", ") != c.want {
			t.Errorf("%s: after %s %s comes\n%s; want\n%s", c.name, c.after, c.zone, strings.Join(got, ", "), c.want)
		}
	}
}

func TestTheSecondPassOfAnHourRunsNothingAgain(t *testing.T) {
	berlin := in(t, "Europe/Berlin")
	rule := MustParse("30 2 * * *")
	second := time.Date(2026, 10, 25, 1, 10, 0, 0, time.UTC).In(berlin) // 02:10 CET
	if next := rule.Next(second); next.Format("01-02 15:04 MST") != "10-26 02:30 CET" {
		t.Errorf("after %v comes %v", second, next)
	}
}

func TestWhatIsNoCronTextIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "*", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "*/0 * * * *", "5-1 * * * *", "a * * * *",
		"@never", "@every", "@every 1", "@every -1h", "@every 1ms", "0 0 30 2 *", "TZ=", "TZ= * * * * *", "TZ=Nowhere/City * * * * *", "TZ=Local * * * * *",
		"TZ=UTC", "TZ=UTC TZ=UTC * * * * *", "CRON_TZ=UTC", "TZ=UTC @every 1h", "TZ=../../etc/passwd * * * * *",
	} {
		if rule, err := Parse(text); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q: got %v and the error %v, want one that quotes it", text, rule, err)
		}
	}
}

func TestMustParsePanicsWithTheError(t *testing.T) {
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "nonsense") {
			t.Errorf("it panicked with %v", v)
		}
	}()
	MustParse("nonsense")
}

var zones = []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Pacific/Apia"}

// For any expression, zone and time, the next instant lies ahead and matches the expression. Next
// returns the same instant for every time in between.
func FuzzParse(f *testing.F) {
	for i, text := range []string{"30 2 * * *", "0 */2 * * *", "*/7 1-3,22 * 2,10 SUN", "5 4 3 2 1 0", "@daily", "@every 90m", "TZ=Europe/Berlin 0,59 2 * * *", "? ? ? ? ?", "0 0 29 2 *"} {
		f.Add(text, int64(1_774_746_000+i*1801), uint8(i))
	}
	f.Fuzz(func(t *testing.T, text string, seconds int64, zone uint8) {
		rule, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(fmt.Sprint(rule))
		isEvery := strings.HasPrefix(fmt.Sprint(rule), "every ")
		if err != nil && !isEvery {
			t.Fatalf("%q is %q, which is refused: %v", text, rule, err)
		}
		const year = 365 * 24 * 3600
		at := time.Unix(10*year+(seconds%(60*year)+60*year)%(60*year), 0).In(in(t, zones[int(zone)%len(zones)]))
		next := rule.Next(at)
		if next.IsZero() {
			return // none within five years
		}
		if !next.After(at) {
			t.Fatalf("%q: after %v comes %v", text, at, next)
		}
		for _, before := range []time.Time{next.Add(-time.Millisecond), at.Add(next.Sub(at) / 2)} {
			if got := rule.Next(before.In(at.Location())); !got.Equal(next) {
				t.Fatalf("%q: after %v comes %v, but after %v, which is before it, %v", text, at, next, before, got)
			}
		}
		if !isEvery && !again.Next(at).Equal(next) {
			t.Fatalf("%q and %q differ after %v", text, again, at)
		}
	})
}
