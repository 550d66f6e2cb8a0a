package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go"
)

const (
	shownText = 64 << 10 // bytes of a payload or error on its own page
	shownLine = 160      // characters of a payload or error in a table
)

// printable escapes everything in a text that could deceive a reader or break a page. Control
// characters, marks that turn the direction of writing, and the like become \u001b. Bytes that are
// not UTF-8 become \xff. Line breaks and tabs stay. The template escapes HTML.
func printable(in string) string {
	var out strings.Builder
	raw := in[:min(len(in), shownText)]
	for len(raw) > 0 {
		r, n := utf8.DecodeRuneInString(raw)
		switch {
		case r == utf8.RuneError && n <= 1:
			if len(raw) < utf8.UTFMax && len(in) > shownText {
				return out.String() // the text was cut in the middle of a character
			}
			fmt.Fprintf(&out, `\x%02x`, raw[0])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&out, `\U%08x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		raw = raw[n:]
	}
	return out.String()
}

// pretty returns JSON indented on several lines, unless it is too large or not valid JSON.
func pretty(raw json.RawMessage) string {
	var out bytes.Buffer
	if len(raw) <= shownText && json.Indent(&out, raw, "", "  ") == nil && out.Len() <= shownText {
		return printable(out.String())
	}
	return printable(string(raw[:min(len(raw), shownText+utf8.UTFMax)]))
}

// brief returns text cut to one short line.
func brief[T ~string | ~[]byte](in T) string {
	line := strings.Join(strings.Fields(printable(string(in[:min(len(in), 8*shownLine)]))), " ")
	if utf8.RuneCountInString(line) <= shownLine && len(in) <= 8*shownLine {
		return line
	}
	runes := []rune(line)
	return string(runes[:min(len(runes), shownLine)]) + "…"
}

// size formats a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// number groups digits by threes.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// capped formats a count of Depths, which may be limited.
func capped(n int64) string {
	if n >= pgqrs.DepthLimit {
		return number(pgqrs.DepthLimit) + "+"
	}
	return number(n)
}

// span formats a duration in its two greatest units.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-max(d, -math.MaxInt64)) // the least duration has no negative
	case d < time.Millisecond:
		return "<1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d m %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %02d m", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %02d h", int(d.Hours())/24, int(d.Hours())%24)
}

// ago formats a past or future time relative to now.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "–"
	case d > 1000*24*time.Hour || d < -1000*24*time.Hour:
		return "far off"
	case d > -time.Second && d < time.Second:
		return "now"
	case d < 0:
		return "in " + span(-d.Truncate(time.Second))
	}
	return span(d.Truncate(time.Second)) + " ago"
}

// clock formats a time in full.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

// stamp formats a time for programs.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
