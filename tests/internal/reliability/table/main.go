// Command table reads the reports of package reliability, which are lines of JSON, from its
// standard input and writes them as a table in Markdown.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
)

func main() {
	if err := write(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

const head = `| fault | how injected | runs | messages | lost | doubled effects |
|---|---|---|---|---|---|
`

// write adds up the rows of the same fault and the same injection.
func write(w io.Writer, r io.Reader) error {
	type key struct{ fault, injected string }
	sums := map[key]*reliability.Row{}
	var rows []*reliability.Row
	for lines := json.NewDecoder(r); ; {
		var row reliability.Row
		err := lines.Decode(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		sum := sums[key{row.Fault, row.Injected}]
		if sum == nil {
			sums[key{row.Fault, row.Injected}] = &row
			rows = append(rows, &row)
			continue
		}
		sum.Runs += row.Runs
		sum.Messages += row.Messages
		sum.Lost += row.Lost
		sum.Doubled += row.Doubled
	}
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %d |\n",
			row.Fault, row.Injected, row.Runs, row.Messages, row.Lost, row.Doubled); err != nil {
			return err
		}
	}
	return nil
}
