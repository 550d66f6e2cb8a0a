// Package concurrent runs the conformance suite with Config.Concurrent on
// SQLite's begin-concurrent branch, through github.com/ncruces/go-sqlite3: one
// of the two engines here that have BEGIN CONCURRENT. Writers there run side by
// side, and one that has read or written a page that another changed meanwhile
// fails at COMMIT with "database is locked".
//
// It is a module of its own, and not in go.work, because the branch comes with
// an old version of a driver that the other tests use in a new one. Run it with
//
//	GOWORK=off go test ./...
//	GOWORK=off go test -run TestTable -v . -args -table    # 1 to 8 writers, BEGIN CONCURRENT against BEGIN IMMEDIATE
package concurrent
