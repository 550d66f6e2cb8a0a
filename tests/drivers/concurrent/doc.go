// Package concurrent runs the conformance suite with Config.Concurrent on SQLite's begin-concurrent
// branch, through github.com/ncruces/go-sqlite3. The branch is one of the two tested engines that
// have BEGIN CONCURRENT. Its writers run side by side. A transaction fails at COMMIT with "database
// is locked" if it has read or written a page that another transaction has changed meanwhile.
//
// It is a module of its own outside go.work, because the branch comes with an old version of a
// driver that the other tests use in a new version. Run it with
//
//	GOWORK=off go test ./...
//	GOWORK=off go test -run TestTable -v . -args -table    # with 1 to 8 writers
//
// The second command compares BEGIN CONCURRENT with BEGIN IMMEDIATE.
package concurrent
