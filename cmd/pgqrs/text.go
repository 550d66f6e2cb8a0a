package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

const (
	ellipsis = "…"
	maxMarks = 2 // combining marks on one character. More would reach into other lines.
)

// clean escapes what a terminal could take for a command, what it does not show, and bytes that are
// no text. The rest stays as it is.
func clean(text string) string { return clip(text, -1) }

// clip is like clean, and cuts the text to a width in cells of a terminal. A negative width cuts
// nothing.
func clip(text string, width int) string {
	var b strings.Builder
	used, marks, kept := 0, 0, 0 // kept is the length of b that leaves a cell for the ellipsis
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		shown := text[:size]
		if !unicode.IsPrint(r) || r == utf8.RuneError || marks > maxMarks {
			shown = escape(text[:size])
		}
		used += ansi.StringWidth(shown)
		if width >= 0 && used > width {
			return b.String()[:kept] + strings.Repeat(ellipsis, min(width, 1))
		}
		b.WriteString(shown)
		if used < width {
			kept = b.Len()
		}
		text = text[size:]
	}
	return b.String()
}

// escape writes a character as an escape of a Go string.
func escape(char string) string {
	quoted := strconv.QuoteToASCII(char)
	return quoted[1 : len(quoted)-1]
}

// lines is like clean for text of several lines, cut to limit bytes.
func lines(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range all {
		all[i] = clean(strings.ReplaceAll(line, "\t", "  "))
	}
	if cut {
		all = append(all, ellipsis+" (-json shows all)")
	}
	return strings.Join(all, "\n")
}

// moment formats a time, or returns "" for the zero time.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// span formats a duration in at most two units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "-" + span(-max(d, -math.MaxInt64)) // the least duration has no negative
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= 10*time.Second:
		return fmt.Sprintf("%ds", d/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}
