package pgqrs

import (
	"encoding/json"
	"unicode/utf8"
)

// ListedBytes is the size in bytes up to which a listing returns a text that an application has
// written: the payload of a message or schedule, the input or output of a run, the output of a step, and every error.
// A longer text is cut, and Cut of the row says so. Headers are complete, or
// missing if they have more than 128 KiB, as only foreign SQL writes them. So a page
// of 1000 messages holds no more than some 100 MiB, whatever is stored.
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
func (i *RunInfo) cut(input, output int64, recorded []byte) {
	var in, out, failure bool
	i.InputSize, i.OutputSize = input, output
	i.Input, in = cutSized(i.Input, input)
	i.Output, out = cutSized(i.Output, output)
	i.Error, failure = listedErrorText(recorded)
	i.Cut = in || out || failure
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
