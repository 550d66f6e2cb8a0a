// Package pgqrstest has what tests of an application need that uses pgqrs: [Drain] and [Advance] on
// a real database, [RequireEnqueued], and [NewRun] for a workflow's function without a database.
//
// Package [github.com/pgqrs/pgqrs-go/pgqrstest/conformance] has the suite that pgqrs itself runs on
// every driver.
package pgqrstest
