package bench

import (
	"html"
	"io"
)

const (
	plotWidth  = 860
	plotLabel  = 300 // for the text before a bar
	plotBar    = 400
	plotRow    = 18
	plotMargin = 12
)

// SVG draws a bar for each contestant of each workload, and a thin line from its minimum to its
// maximum. The length of a bar is the contestant's median relative to the largest median of the
// workload.
func (r *Report) SVG(w io.Writer) error {
	height := plotMargin
	for _, e := range r.Engines {
		height += 2 * plotRow
		for _, x := range e.Workloads {
			height += (len(x.Contestants) + 1) * plotRow
		}
	}
	out := &sink{w: w}
	out.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height+plotMargin)
	out.printf(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	y := plotMargin
	for _, e := range r.Engines {
		y += plotRow
		out.printf(`<text x="%d" y="%d" font-size="15" font-weight="bold">%s</text>`+"\n", plotMargin, y, html.EscapeString(e.Title))
		y += plotRow
		for i := range e.Workloads {
			y = e.Workloads[i].plot(out, y)
		}
	}
	out.printf("</svg>\n")
	return out.err
}

// plot draws one workload from y on and returns the y of the next one.
func (w *WorkloadReport) plot(out *sink, y int) int {
	figure := w.mainFigure()
	most := 0.0
	for _, c := range w.Contestants {
		if s, ok := w.spread(c.Name, figure); ok {
			most = max(most, s.Max)
		}
	}
	out.printf(`<text x="%d" y="%d" font-weight="bold">%s (%s)</text>`+"\n", plotMargin, y, html.EscapeString(w.Title), html.EscapeString(heading(figure)))
	y += plotRow
	for _, c := range w.Contestants {
		s, ok := w.spread(c.Name, figure)
		if !ok || most == 0 {
			continue
		}
		scale := plotBar / most
		color := "#9aa5b1"
		if c.Name == ours {
			color = "#1f77b4"
		}
		out.printf(`<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotLabel-6, y, html.EscapeString(c.Name))
		out.printf(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLabel, y-plotRow/2-2, s.Median*scale, plotRow-6, color)
		out.printf(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`+"\n", plotLabel+s.Min*scale, plotLabel+s.Max*scale, y-4, y-4)
		out.printf(`<text x="%d" y="%d">%s</text>`+"\n", plotLabel+plotBar+8, y, html.EscapeString(s.String()))
		y += plotRow
	}
	return y
}
