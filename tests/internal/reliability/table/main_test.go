package main

import (
	"strings"
	"testing"
)

func TestRowsOfTheSameFaultAreOne(t *testing.T) {
	const reports = `{"fault":"a","injected":"b","runs":1,"messages":2,"lost":0,"doubled":0}
{"fault":"a","injected":"c","runs":1,"messages":2,"lost":0,"doubled":0}
{"fault":"a","injected":"b","runs":1,"messages":2,"lost":3,"doubled":4}
`
	var got strings.Builder
	if err := write(&got, strings.NewReader(reports)); err != nil {
		t.Fatal(err)
	}
	if want := head + "| a | b | 2 | 4 | 3 | 4 |\n| a | c | 1 | 2 | 0 | 0 |\n"; got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if err := write(&got, strings.NewReader("{")); err == nil {
		t.Error("half a line was taken")
	}
}
