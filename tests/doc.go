// Package tests runs the conformance suite of package pgqrstest/conformance on every
// database driver the project promises to work with.
//
// It is a module of its own, so that no driver is a requirement of the
// library. In drivers/ there is one package a driver, because some drivers cannot be
// linked together: mattn and ncruces register the same name, go-libsql and
// mattn define the same C symbols.
//
//	drivers/pq, drivers/pgx                               PostgreSQL, on a private server the tests start
//	drivers/ncruces, drivers/modernc, drivers/mattn       SQLite, on a file
//	drivers/libsql                                        libSQL (dialect Turso), on a file
//	drivers/turso, drivers/tursomvcc                      Turso's engine, and its BEGIN CONCURRENT
//	drivers/concurrent                                    SQLite's begin-concurrent branch, a module of its own
//	drivers/encrypted, drivers/memory                     SQLite of ncruces, on encrypted files and in memory
//	drivers/generic                                       any driver, named by environment variables
//
// The other packages are one kind of test each:
//
//	crash, volume         processes that are killed, and many messages
//	faults                databases that fail under an application at work
//	races                 two statements that meet, in each order
//	model                 random operations, held against models, and histories of concurrent consumers
//	fuzz                  messages and rows of any content
//	plan                  how each statement is executed on a million rows
//	encodings, settings   databases with other encodings and settings
//	limits                what a limit costs a claim
//	notify                wake-ups by PostgreSQL's NOTIFY
//	orm                   transactions of sqlx, GORM and bun, a module of its own
//	dashboard             the dashboard in a headless Chromium
//	ahead                 what a blocked message waits for
//	otel                  the metrics and spans of otelpgqrs
//	application           an older application that adds pgqrs
//	interop               tables that are shared with pgqrs 0.15.3 in Python
//	postgres              no tests: servers for the other packages
//
// Run them all from this directory with
//
//	go test ./...
//
// mattn and libsql need cgo and a C compiler. The PostgreSQL packages need
// either the server's binaries or the variable PGQRS_TEST_POSTGRES; package
// postgres, which the tests of other modules use too, says how they are found.
// Where CI is set in the environment a missing PostgreSQL is a failure,
// elsewhere a skip. So is a missing PgBouncer, and a right to mount that is
// missing, for package faults.
package tests
