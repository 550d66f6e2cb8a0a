package dashboard

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A chart has lines over the minutes for which there are samples. The lines are paths of an SVG
// that is chartWidth wide and chartHeight high. They break where no samples were taken.
type chart struct {
	Title string
	Max   int64
	Now   int64
	Lines []line
	Since time.Duration // the time that the width stands for
}

type line struct{ Class, Path string }

const (
	chartWidth  = 300
	chartHeight = 60
	maxGap      = 15 * time.Second // between two samples of one line
	shortest    = time.Minute      // time that a chart stands for
)

// A series is one line of a chart.
type series struct {
	class string
	value func(pgqrs.QueueDepth) int64
}

// draw makes a chart of a queue from samples.
func draw(title, queue string, now sample, ring []sample, all ...series) chart {
	c := chart{Title: title, Since: shortest}
	if len(ring) > 0 {
		c.Since = max(shortest, now.at.Sub(ring[0].at).Round(time.Second))
	}
	for _, s := range ring {
		if q, ok := s.find(queue); ok {
			for _, one := range all {
				c.Max = max(c.Max, one.value(q))
			}
		}
	}
	if q, ok := now.find(queue); ok {
		c.Now = all[0].value(q)
		c.Max = max(c.Max, c.Now)
	}
	for _, one := range all {
		c.Lines = append(c.Lines, line{Class: one.class, Path: c.trace(queue, now, ring, one.value)})
	}
	return c
}

// trace returns the path of one line.
func (c chart) trace(queue string, now sample, ring []sample, value func(pgqrs.QueueDepth) int64) string {
	var path strings.Builder
	var before time.Time
	for _, s := range ring {
		q, ok := s.find(queue)
		if !ok {
			continue
		}
		x := chartWidth * (1 - float64(now.at.Sub(s.at))/float64(c.Since))
		y := chartHeight - 1 - (chartHeight-2)*float64(value(q))/float64(max(c.Max, 1))
		if s.at.Sub(before) > maxGap {
			fmt.Fprintf(&path, "M%.1f %.1f", x-1, y) // so that a single point is visible
		}
		fmt.Fprintf(&path, "L%.1f %.1f", x, y)
		before = s.at
	}
	return path.String()
}

// A bar is a span of time on a run's timeline.
type bar struct{ X, Width float64 }

const barWidth = 1000

// between returns the bar for a span on a line from begin to end.
func between(from, to, begin, end time.Time) bar {
	total := max(float64(end.Sub(begin)), 1)
	x := barWidth * min(max(float64(from.Sub(begin))/total, 0), 1)
	until := barWidth * min(max(float64(to.Sub(begin))/total, 0), 1)
	b := bar{X: x, Width: max(until-x, 4)}
	b.X = min(b.X, barWidth-b.Width)
	return b
}
