// Package testkit lets package pgqrstest reach what package pgqrs does not export.
package testkit

// NewRun makes a *pgqrs.Run without a database; Ran names the steps whose function it called.
var (
	NewRun func(given map[string]any) any
	Ran    func(run any) []string
)
