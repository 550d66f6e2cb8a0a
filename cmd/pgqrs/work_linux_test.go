package main

import (
	"os"
	"testing"
)

func TestASessionOfACommandEndsWithIt(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	endsWithItsCommand(t, func(held string) string { return "AS_SESSION='" + held + "' '" + self + "' & wait" })
}
