package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const maxShown = 16 << 10 // bytes of a payload or error that tables show in full

// list writes things as a table, or as one line each with -json.
func list[T any](c call, what string, things []T, columns []column[T]) error {
	if c.Bool("json") {
		for _, thing := range things {
			if err := writeJSON(c.out, thing); err != nil {
				return err
			}
		}
		return nil
	}
	if len(things) == 0 {
		return c.note("no %s", what)
	}
	return writeTable(c.out, c.width, things, columns)
}

// done reports a result: as a sentence, or as an object with -json.
func (c call) done(object map[string]any, format string, args ...any) error {
	if c.Bool("json") {
		return writeJSON(c.out, object)
	}
	_, err := fmt.Fprintln(c.out, clean(fmt.Sprintf(format, args...)))
	return err
}

// note prints a sentence that is not part of the result.
func (c call) note(format string, args ...any) error {
	_, err := fmt.Fprintln(c.err, clean(c.hide(fmt.Sprintf(format, args...))))
	return err
}

// writeJSON writes v on a line. It escapes everything that a terminal could take for a command.
func writeJSON(w io.Writer, v any) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(text), '\n'))
	return err
}

// encode is like json.Marshal, without escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// joinJSON writes the fields of two objects as one object.
func joinJSON(v, more any) ([]byte, error) {
	text, err := encode(v)
	if err != nil {
		return nil, err
	}
	added, err := encode(more)
	if err != nil || string(added) == "{}" {
		return text, err
	}
	text = append(text[:len(text)-1], ',')
	return append(text, added[1:]...), nil
}

// escapeJSON replaces unprintable characters by \u escapes. All of them stand in strings.
func escapeJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	marks := 0
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		switch high, low := utf16.EncodeRune(r); {
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) && marks <= maxMarks:
			out = append(out, text[:size]...)
		case high != unicode.ReplacementChar:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// compacted returns stored JSON on one line, or its beginning. Databases differ in the spaces that
// they keep.
func compacted(stored json.RawMessage) string {
	var b bytes.Buffer
	if len(stored) > maxShown || json.Compact(&b, stored) != nil {
		return string(stored[:min(len(stored), maxShown)])
	}
	return b.String()
}

// listed is like compacted, for JSON of size bytes that a listing may have cut.
func listed(stored json.RawMessage, size int64) string {
	const shown = 40
	if int64(len(stored)) >= size {
		return compacted(stored)
	}
	return fmt.Sprintf("%s%s cut, %s in all; the whole by id", stored[:min(len(stored), shown)], ellipsis, bytesText(size))
}

// bytesText formats a number of bytes.
func bytesText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return plural(n, "byte")
}

// indented returns stored JSON, indented.
func indented(stored json.RawMessage) string {
	var b bytes.Buffer
	if len(stored) > maxShown || json.Indent(&b, stored, "", "  ") != nil {
		return string(stored)
	}
	return b.String()
}

// plural formats a count of things: 1 message, 2 messages.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if !strings.HasSuffix(noun, "s") {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
