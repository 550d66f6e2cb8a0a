// Package testkit lets package pgqrstest reach what package pgqrs does not export.
package testkit

// NewRun makes a *pgqrs.Run without a database; Ran names the steps whose function it called.
// Render puts the schema of a *pgqrs.Store into a text of SQL. Queue returns the queue of a
// pgqrs.Handler.
var (
	NewRun func(given map[string]any) any
	Ran    func(run any) []string
	Render func(store any, text string) string
	Queue  func(handler any) string
)
