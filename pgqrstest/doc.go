// Package pgqrstest helps applications to test their use of pgqrs:
//
//   - [Drain] and [Advance] work on a real database.
//   - [RequireEnqueued] checks that a message was enqueued.
//   - [NewRun] tests a workflow's function without a database.
//
// Package [github.com/pgqrs/pgqrs-go/pgqrstest/conformance] is the suite that pgqrs runs on every
// driver.
package pgqrstest
