package dashboard

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func TestALineBreaksWhereNobodyLooked(t *testing.T) {
	var ring []sample
	for _, seconds := range []int{0, 2, 4, 60, 62} {
		ring = append(ring, sample{noon.Add(time.Duration(seconds) * time.Second), []pgqrs.QueueDepth{{Name: "emails", Ready: 1}}})
	}
	c := draw("waiting", "emails", ring[len(ring)-1], ring, readySeries)
	if n := strings.Count(c.Lines[0].Path, "M"); n != 2 {
		t.Errorf("%d pieces; want 2: %s", n, c.Lines[0].Path)
	}
	if c.Max != 1 || c.Now != 1 {
		t.Errorf("most %d, now %d", c.Max, c.Now)
	}
}

func TestTimelinePlacesStepsBetweenTheRecords(t *testing.T) {
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	info := pgqrs.RunInfo{CreatedAt: at(0), StartedAt: at(10), EndedAt: at(100)}
	marks := timeline(info, []pgqrs.StepInfo{
		{Name: "copied", Status: pgqrs.Succeeded, StartedAt: at(-50), EndedAt: at(-50)},
		{Name: "first", Status: pgqrs.Succeeded, StartedAt: at(20), EndedAt: at(20)},
		{Name: "sleep", Status: pgqrs.Succeeded, StartedAt: at(30), EndedAt: at(90)},
		{Name: "last", Status: pgqrs.Failed, StartedAt: at(100), EndedAt: at(100)},
	}, at(100))
	var got []string
	for _, m := range marks {
		got = append(got, fmt.Sprintf("%s %s %.0f+%.0f %v", m.Name, m.Word, m.Bar.X, m.Bar.Width, m.Inherited))
	}
	want := []string{"copied done 0+4 true", "first done 100+100 false", "sleep done 300+600 false", "last failed 900+100 false"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A step that took no time begins where the latest record before it ended. The search for that
// record has to be fast for many steps.
func TestTimelineOfManySteps(t *testing.T) {
	const n = 100_000 // a loop over all steps for each step would take too long
	steps := make([]pgqrs.StepInfo, n)
	for i := range steps {
		at := noon.Add(time.Duration(i+1) * time.Second)
		steps[i] = pgqrs.StepInfo{Name: fmt.Sprint(i), Status: pgqrs.Succeeded, StartedAt: at, EndedAt: at}
	}
	for _, m := range timeline(pgqrs.RunInfo{CreatedAt: noon, StartedAt: noon}, steps, noon.Add((n+1)*time.Second)) {
		if m.Took > time.Second {
			t.Fatalf("step %s took %v, want 1s at most", m.Name, m.Took)
		}
	}
}
