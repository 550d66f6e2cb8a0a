// Report reads the output of go test -json and prints what a person wants to
// know of it: a line a package, everything a failed test or build wrote, what a
// test that passed logged with the word proved before it, and at the end how many conformance cases passed on each driver. It exits with
// status 1 if anything failed.
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
