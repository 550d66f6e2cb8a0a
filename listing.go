package pgqrs

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ListedBytes is the size in bytes up to which a listing returns a text that an application has
// written: the payload of a message or schedule, the input or output of a run, the output of a step, and every error,
// warning and rule. A longer text is cut, and Cut of the row says so. Headers are complete, or
// missing if they have more than 128 KiB, as only foreign SQL writes them. A name or a key of more than 1 KiB, which
// only foreign SQL writes too, is cut there, and Malformed says so. So a page
// of 1000 messages holds no more than some 160 MiB, whatever is stored.
//
// Complete rows come from [Store.Message], [RunHandle.Info], [RunHandle.Step] and, by name, [Store.Schedules].
const ListedBytes = 16 << 10

// cutText returns the beginning of a text that has more than ListedBytes, and whether it has.
func cutText(text []byte) ([]byte, bool) {
	if len(text) <= ListedBytes {
		return text, false
	}
	return cutSized(text, int64(len(text)))
}

// cutSized is cutText for a text of which the database returned the beginning, and the size.
func cutSized(text []byte, size int64) ([]byte, bool) {
	text = text[:min(len(text), ListedBytes)]
	if int64(len(text)) >= size {
		return text, false
	}
	return wholeCharacters(text), true
}

// maxListedName is the size in bytes up to which a listing returns a name or a key.
const maxListedName = 1 << 10

// cutNames cuts names and keys of a listed row to maxListedName. The columns have the names, which
// are separated by spaces. It returns what is wrong with the row, malformed included.
func cutNames(malformed, names string, texts ...*string) string {
	for i, name := range strings.Fields(names)[:len(texts)] {
		text := texts[i]
		if len(*text) <= maxListedName {
			continue
		}
		*text = string(wholeCharacters([]byte((*text)[:maxListedName])))
		malformed = joinMalformed(malformed, name+": it is longer than any that a program of this library writes")
	}
	return malformed
}

// cutCursor is the text of a time that stands in a cursor. One that is too long for a time is cut.
// The next page begins after all texts that begin like it.
func cutCursor(sorted string, ascending bool) string {
	if len(sorted) <= maxListedName {
		return sorted
	}
	sorted = string(wholeCharacters([]byte(sorted[:maxListedName])))
	if ascending {
		sorted += string(unicode.MaxRune)
	}
	return sorted
}

// wholeCharacters is a text without a last character of which only the beginning is there.
func wholeCharacters(text []byte) []byte {
	for at := len(text) - 1; at >= max(0, len(text)-utf8.UTFMax); at-- {
		if !utf8.RuneStart(text[at]) {
			continue
		}
		if !utf8.FullRune(text[at:]) {
			return text[:at]
		}
		break
	}
	return text
}

// cut takes in how large a listed message is in the table.
func (m *MessageInfo) cut(size int64, headers bool) {
	var payload, failure bool
	var text []byte
	m.PayloadSize = size
	m.Raw, payload = cutSized(m.Raw, size)
	if text, failure = cutText([]byte(m.LastError)); failure {
		m.LastError = string(text)
	}
	m.Cut = payload || failure || headers
}

// cut takes in how large a listed run is in the table.
func (i *RunInfo) cut(input, output int64, recorded []byte, warning *string) {
	var in, out, failure, warned bool
	if text, cut := cutText([]byte(*warning)); cut {
		*warning, warned = string(text), true
	}
	i.InputSize, i.OutputSize = input, output
	i.Input, in = cutSized(i.Input, input)
	i.Output, out = cutSized(i.Output, output)
	i.Error, failure = listedErrorText(recorded)
	i.Cut = in || out || failure || warned
}

// listedErrorText is the text of a recorded error that may be longer than a listing returns, and whether it is.
func listedErrorText(raw []byte) (string, bool) {
	raw, cut := cutText(raw)
	if !cut || len(raw) == 0 || raw[0] != '"' {
		return runErrorText(raw), cut
	}
	for n := len(raw); n > len(raw)-len(`\u0000\u0000`); n-- { // an escape may have been cut
		var text string
		if json.Unmarshal(append(raw[:n:n], '"'), &text) == nil {
			return text, true
		}
	}
	return string(raw), true
}
