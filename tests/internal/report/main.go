// Report reads the output of go test -json and prints a summary:
//
//   - a line for each package
//   - the output of every failed test or build
//   - the lines of passed tests that begin with the word proved
//   - the number of conformance cases that passed on each driver
//
// It exits with status 1 if anything failed.
package main

import (
	"fmt"
	"os"
)

func main() {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	r.summary()
	if r.failed {
		os.Exit(1)
	}
}
