// Package testkit lets package pgqrstest reach what package pgqrs does not export.
package testkit

// These functions are set by package pgqrs:
//
//   - NewRun creates a *pgqrs.Run without a database.
//   - Ran returns the names of the steps whose function such a run has called.
//   - Render writes the schema of a *pgqrs.Store into SQL text.
//   - Queue returns the queue of a pgqrs.Handler.
var (
	NewRun func(given map[string]any) any
	Ran    func(run any) []string
	Render func(store any, text string) string
	Queue  func(handler any) string
)
