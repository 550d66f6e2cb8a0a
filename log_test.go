//go:build go1.25

package pgqrs

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failure that lasts logs a few lines of rising level, ever less often, and one line when it
// ends.
func TestRecurringFailuresAreLoggedEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		f := failureLogs{log: slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "since" {
				return slog.Attr{}
			}
			return a
		}}))}
		begun := time.Now()
		for time.Since(begun) < 25*time.Minute {
			f.key("claim").Warn("pgqrs: could not claim", "err", errors.New("boom"))
			f.key("renew").over()
			pass(500 * time.Millisecond)
		}
		f.key("claim").over() // it may fail again at once
		pass(failureOver)
		f.key("claim").over()
		f.key("claim").over()
		f.key("claim").Warn("pgqrs: could not claim", "err", errors.New("boom"))
		want := `level=WARN msg="pgqrs: could not claim" err=boom
level=WARN msg="pgqrs: could not claim" err=boom times=21
level=ERROR msg="pgqrs: could not claim" err=boom times=121
level=ERROR msg="pgqrs: could not claim" err=boom times=1201
level=ERROR msg="pgqrs: could not claim" err=boom times=2401
level=INFO msg="pgqrs: what had failed works again" what="could not claim" times=3000
level=WARN msg="pgqrs: could not claim" err=boom
`
		if got := lines.String(); got != want {
			t.Errorf("logged\n%s\nwant\n%s", got, want)
		}
		if f.key("claim").over(); strings.Count(lines.String(), "works again") != 1 {
			t.Error("it is over although it has just failed")
		}
	})
}

func TestNoteTimerCountsWhatItDoesNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n limitedLog
		said := func(want int) {
			t.Helper()
			if got := n.count(time.Minute); got != want {
				t.Errorf("it says %d, want %d", got, want)
			}
		}
		said(1)
		said(0)
		time.Sleep(time.Minute - 1)
		said(0)
		time.Sleep(time.Nanosecond)
		said(3)
		said(0)
	})
}
