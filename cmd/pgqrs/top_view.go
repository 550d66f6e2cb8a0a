package main

import (
	"fmt"
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

const (
	topKeys   = "q quit  ↑↓ queue  tab panel  s sort  r reverse  space freeze"
	highlight = "\x1b[7m"
	plain     = "\x1b[m"
)

// View implements tea.Model.
func (s *screen) View() tea.View {
	v := tea.NewView(strings.Join(s.lines(), "\n"))
	v.AltScreen = true
	return v
}

// lines returns the lines of the screen. They fit the screen in width and number.
func (s *screen) lines() []string {
	head := []string{s.summary(), ""}
	if s.err != nil {
		head[1] = clip("error: "+s.err.Error(), s.width)
	}
	room := max(s.height-len(head)-3, 4) // 3 for a blank line, the panel's title and the keys
	queues := s.queueLines(room/2 + room%2)
	rest := s.tableLines(s.writeDetail)
	lines := append(head, queues...)
	lines = append(lines, "", clip(s.title(), s.width))
	lines = append(lines, rest[:min(len(rest), max(room-len(queues), 0))]...)
	for len(lines) < s.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(min(len(lines), s.height-1), 0)], clip(topKeys, s.width))
	return lines
}

func (s *screen) summary() string {
	if s.last.at.IsZero() {
		return "pgqrs top: looking at the database"
	}
	all := sum(s.paces)
	text := fmt.Sprintf("pgqrs top  %s  %s  ready %v  leased %v  dead %v  done %v/min  by %s",
		s.store.Dialect(), s.last.at.Format("15:04:05"), bounded(all.Ready), bounded(all.Leased), bounded(all.Dead), bounded(all.ArchivedLastMinute), orders[s.order].title)
	if s.backward {
		text += ", reversed"
	}
	if s.frozen {
		text += "  FROZEN"
	}
	return clip(text, s.width)
}

// title returns the title of the panel.
func (s *screen) title() string {
	if s.selected == "" {
		return "no queues"
	}
	return fmt.Sprintf("%s of %s", panels[s.panel].title, s.selected)
}

// formatted is how many queues around the selected one decide the widths of columns.
const formatted = 500

// queueLines returns the table of queues around the selected one, which is highlighted.
func (s *screen) queueLines(room int) []string {
	at := s.index()
	begin := max(0, min(at-formatted/2, len(s.paces)-formatted))
	near := s.paces[begin:min(begin+formatted, len(s.paces))]
	at -= begin
	lines := s.tableLines(func(w io.Writer, width int) error { return writeTable(w, width, near, paceColumns) })
	title, rows := lines[0], lines[1:]
	n := min(len(rows), room-1)
	from := min(max(at-n/2, 0), len(rows)-n)
	shown := append([]string{title}, rows[from:from+n]...)
	if len(rows) > 0 {
		line := &shown[1+at-from]
		*line = highlight + *line + strings.Repeat(" ", max(s.width-ansi.StringWidth(*line), 0)) + plain
	}
	return shown
}

// tableLines returns the lines of a table, cut to the width of the screen.
func (s *screen) tableLines(write func(io.Writer, int) error) []string {
	var b strings.Builder
	if err := write(&b, s.width); err != nil {
		return []string{clip(err.Error(), s.width)}
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, s.width, ellipsis)
	}
	return lines
}
