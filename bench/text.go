package bench

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// units are the units of figures.
var units = map[string]string{
	measure.Rate: "per second", measure.P50: "p50 ms", measure.P99: "p99 ms", measure.Allocs: "allocs each", measure.CPU: "CPU µs each", measure.ServerCPU: "server CPU µs each", measure.PeakMiB: "peak MiB",
	"resident": "resident MiB", "recovery": "recovery s", "statements": "statements/s", "dead": "dead rows",
	"claim": "claim per second", "drain": "drain per second", measure.Capped: "stopped early",
}

func heading(figure string) string {
	if unit, ok := units[figure]; ok {
		return unit
	}
	return figure
}

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) error {
	out := &sink{w: w}
	for _, line := range r.Machine.lines() {
		out.printf("%s\n", line)
	}
	out.printf("run       %s, began %s, took %v\n", r.Config, r.Started.Format("2006-01-02 15:04"), r.Took.Round(1e9))
	out.printf("          figures are medians of the rounds (least to most), and ratios are taken within each round\n")
	for _, e := range r.Engines {
		out.printf("\n==== %s\n", e.Title)
		for _, s := range e.Settings {
			out.printf("     %s\n", s)
		}
		for i := range e.Workloads {
			e.Workloads[i].text(out)
		}
	}
	return out.err
}

func (w *WorkloadReport) text(out *sink) {
	out.printf("\n%s: %s\n", w.Name, w.Title)
	figures := w.figures()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  \t%s\t\n", strings.Join(headings(figures), "\t"))
	for _, c := range w.Contestants {
		cells := []string{c.Name}
		for _, figure := range figures {
			s, ok := w.spread(c.Name, figure)
			if !ok {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, s.String())
		}
		fmt.Fprintf(table, "  %s\t%s\n", strings.Join(cells, "\t"), c.How)
	}
	table.Flush()
	for _, v := range w.Verdicts {
		out.printf("  %s: %s: %s\n", v.Word, v.Asked, v.Spread)
	}
	for _, e := range w.Errors {
		out.printf("  ERROR %s, round %d: %s\n", e.Contestant, e.Round, e.Error)
	}
	if len(w.Statements) > 0 {
		out.printf("  statements for each: %s\n", w.statementList())
	}
	if len(w.Shares) > 0 {
		out.printf("  CPU of this process: %s\n", w.shareList())
	}
	for _, note := range w.Notes {
		out.printf("  (%s)\n", note)
	}
}

func headings(figures []string) []string {
	var list []string
	for _, figure := range figures {
		list = append(list, heading(figure))
	}
	return list
}

func (w *WorkloadReport) statementList() string {
	var list []string
	for _, tag := range slices.Sorted(maps.Keys(w.Statements)) {
		list = append(list, fmt.Sprintf("%s %.3g", tag, w.Statements[tag]))
	}
	return strings.Join(list, ", ")
}

// shareList formats the shares of the profile. If the database is another process, it also formats
// the library's share of the processor time of both processes.
func (w *WorkloadReport) shareList() string {
	parts := slices.SortedFunc(maps.Keys(w.Shares), func(a, b string) int { return cmp.Compare(w.Shares[b], w.Shares[a]) })
	for i, part := range parts {
		parts[i] = fmt.Sprintf("%s %.0f %%", part, 100*w.Shares[part])
	}
	list := strings.Join(parts, ", ")
	own, _ := w.spread(ours, measure.CPU)
	server, ok := w.spread(ours, measure.ServerCPU)
	if all := own.Median + server.Median; ok && all > 0 {
		list += fmt.Sprintf(". All CPU, the server's included: server %.0f %%, library %.0f %%", 100*server.Median/all, 100*w.Shares["library"]*own.Median/all)
	}
	return list
}

func (m Machine) lines() []string {
	return []string{
		fmt.Sprintf("machine   %s, %d cores, %s of memory, %s, databases on %s", m.CPU, m.Cores, m.Memory, m.System, m.Filesystem),
		fmt.Sprintf("load      %s before, %s after", m.LoadBefore, m.LoadAfter),
		fmt.Sprintf("versions  %s, %s", m.Go, strings.Join(m.Modules, ", ")),
	}
}

// A sink writes until an error occurs, and keeps the error.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), s.err
}

func (s *sink) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }
