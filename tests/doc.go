// Package tests runs the conformance suite of package pgqrstest/conformance on every database
// driver that the project supports.
//
// It is a module of its own, so that the library requires no driver. The directory drivers/ has one
// package for each driver, because some drivers cannot be linked together. The drivers
// mattn and ncruces register the same name, and go-libsql and mattn define the same C symbols.
//
//	drivers/pq, drivers/pgx                             PostgreSQL, on a private server
//	drivers/ncruces, drivers/modernc, drivers/mattn     SQLite, on a file
//	drivers/libsql                                      libSQL (dialect Turso), on a file
//	drivers/turso, drivers/tursomvcc                    Turso's engine, and its BEGIN CONCURRENT
//	drivers/concurrent                                  the begin-concurrent branch, an own module
//	drivers/encrypted, drivers/memory                   ncruces, encrypted and in memory
//	drivers/generic                                     any driver, named by the environment
//
// Each of the other packages has one kind of test:
//
//	crash, volume         processes that are killed, and many messages
//	faults                databases that fail under an application at work
//	races                 two statements that meet, in each order
//	model                 random operations compared with models, and concurrent histories
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
// The tests of mattn and libsql need cgo and a C compiler. The PostgreSQL tests need the server's
// binaries or the variable PGQRS_TEST_POSTGRES. Package postgres documents how they are found. The
// tests of other modules use it too.
//
// If PostgreSQL is missing, the tests fail if CI is set in the environment, and are skipped
// otherwise. The same applies to a missing PgBouncer, and in package faults to a missing right to
// mount.
package tests
