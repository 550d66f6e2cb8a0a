package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// A column shows one value of each row. The function fn returns a string, a number, a time, a
// duration, or nil for nothing.
type column[T any] struct {
	title string
	fn    func(T) any
	long  bool // text of any length, which is cut if the table is too wide
	rare  bool // left out if no row has it
	spare bool // left out, the last one first, while the table is too wide
}

const (
	maxLong  = 80  // cells of a long text
	minLong  = 12  // cells that it keeps in any case
	maxTable = 160 // without a terminal
)

// writeTable writes rows in columns. It cuts them to a terminal's width in cells. A width of 0
// means that there is no terminal.
func writeTable[T any](w io.Writer, width int, rows []T, columns []column[T]) error {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c column[T]) bool {
		return c.rare && !slices.ContainsFunc(rows, func(row T) bool { return cell(c.fn(row)) != "" })
	})
	grid := make([][]string, 1+len(rows))
	widths := make([]int, len(columns))
	right := make([]bool, len(columns))
	for c, col := range columns {
		grid[0] = append(grid[0], col.title)
		for r, row := range rows {
			value := col.fn(row)
			right[c] = right[c] || number(value)
			grid[r+1] = append(grid[r+1], clip(cell(value), maxLong))
		}
		for r := range grid {
			widths[c] = max(widths[c], ansi.StringWidth(grid[r][c]))
		}
	}
	if !shrink(widths, columns, width) {
		for c, col := range slices.Backward(columns) {
			if col.spare {
				return writeTable(w, width, rows, slices.Delete(columns, c, c+1))
			}
		}
	}
	for _, cells := range grid {
		if _, err := fmt.Fprintln(w, align(cells, widths, right)); err != nil {
			return err
		}
	}
	return nil
}

// shrink makes the widest columns of long text narrower, and reports whether the table fits then.
func shrink[T any](widths []int, columns []column[T], width int) bool {
	if width == 0 {
		width = maxTable
	}
	for {
		total, widest := 2*(len(widths)-1), -1
		for c, w := range widths {
			total += w
			if columns[c].long && w > minLong && (widest < 0 || w > widths[widest]) {
				widest = c
			}
		}
		if total <= width || widest < 0 {
			return total <= width
		}
		widths[widest]--
	}
}

// align formats a line of a table, with two spaces between columns.
func align(cells []string, widths []int, right []bool) string {
	var b strings.Builder
	for c, text := range cells {
		if c > 0 {
			b.WriteString("  ")
		}
		if ansi.StringWidth(text) > widths[c] {
			text = ansi.Truncate(text, widths[c], ellipsis)
		}
		pad := strings.Repeat(" ", widths[c]-ansi.StringWidth(text))
		if right[c] {
			b.WriteString(pad + text)
		} else {
			b.WriteString(text + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

func number(value any) bool {
	switch value.(type) {
	case int, int64, bounded, float64, time.Duration:
		return true
	}
	return false
}

func cell(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case time.Time:
		return moment(v)
	case time.Duration:
		return span(v)
	}
	return fmt.Sprint(value)
}

// A field is a line in the description of one object.
type field struct {
	name  string
	value any
}

// writeFields writes the fields of one object, each on a line.
func writeFields(w io.Writer, fields ...field) error {
	fields = slices.DeleteFunc(fields, func(f field) bool { return cell(f.value) == "" })
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	for _, f := range fields {
		text := strings.ReplaceAll(lines(cell(f.value), maxShown), "\n", "\n"+strings.Repeat(" ", width+2))
		if _, err := fmt.Fprintf(w, "%-*s  %s\n", width, f.name, text); err != nil {
			return err
		}
	}
	return nil
}
