package bench

import (
	"io"
	"strings"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// Markdown writes the report for docs/BENCHMARKS.md.
func (r *Report) Markdown(w io.Writer) error {
	out := &sink{w: w}
	for _, line := range r.Machine.lines() {
		name, text, _ := strings.Cut(line, " ")
		out.printf("- %s: %s\n", name, strings.TrimSpace(text))
	}
	out.printf("- run: %s, on %s, took %v\n", r.Config, r.Started.Format("2006-01-02"), r.Took.Round(1e9))
	for _, e := range r.Engines {
		out.printf("\n## %s\n\n", e.Title)
		for _, s := range e.Settings {
			out.printf("- %s\n", s)
		}
		e.summary(out)
		for i := range e.Workloads {
			e.Workloads[i].markdown(out)
		}
	}
	return out.err
}

// summary writes one line for each target.
func (e EngineReport) summary(out *sink) {
	out.printf("\n| | target | came to | |\n|---|---|---|---|\n")
	for _, w := range e.Workloads {
		for _, v := range w.Verdicts {
			out.printf("| %s | %s | %s | %s |\n", w.Title, v.Asked, v.Spread, v.Word)
		}
	}
}

func (w *WorkloadReport) markdown(out *sink) {
	out.printf("\n### %s\n\n", w.Title)
	figures := w.figures()
	out.printf("| | %s | |\n|---|%s---|\n", strings.Join(headings(figures), " | "), strings.Repeat("---|", len(figures)))
	for _, c := range w.Contestants {
		var cells []string
		for _, figure := range figures {
			s, ok := w.spread(c.Name, figure)
			text := s.String()
			if !ok {
				text = ""
			}
			cells = append(cells, text)
		}
		out.printf("| %s | %s | %s |\n", c.Name, strings.Join(cells, " | "), c.How)
	}
	if len(w.Statements) > 0 {
		out.printf("\nStatements for each: %s.\n", w.statementList())
	}
	if len(w.Shares) > 0 {
		out.printf("\nCPU of this process: %s.\n", w.shareList())
	}
	for _, e := range w.Errors {
		out.printf("\n%s failed in round %d: %s\n", e.Contestant, e.Round, e.Error)
	}
	for _, note := range w.Notes {
		out.printf("\n%s\n", note)
	}
}

// mainFigure returns the figure that a plot shows.
func (w *WorkloadReport) mainFigure() string {
	figures := w.figures()
	if len(figures) == 0 {
		return measure.Rate
	}
	return figures[0]
}
