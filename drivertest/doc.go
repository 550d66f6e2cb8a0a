// Package drivertest runs the conformance suite of package pgqrstest/conformance on every
// database driver the project promises to work with.
//
// It is a module of its own, so that no driver is a requirement of the
// library. There is one test package a driver, because some drivers cannot be
// linked together: mattn and ncruces register the same name, go-libsql and
// mattn define the same C symbols.
//
//	pq, pgx                    PostgreSQL, on a private server the tests start
//	ncruces, modernc, mattn    SQLite, on a file
//	libsql                     libSQL (dialect Turso), on a file
//	encrypted, memory          SQLite of ncruces, on encrypted files and in memory
//	generic                    any driver, named by environment variables
//	faults                     PostgreSQL and SQLite that fail under an application at work
//	interop                    PostgreSQL and SQLite, shared with pgqrs 0.15.3 in Python
//	crash, volume              PostgreSQL and SQLite: processes that are killed, and many messages
//
// Other packages look for what no example thinks of, on SQLite (ncruces) and PostgreSQL (lib/pq):
//
//	model                      random operations, held against models; histories of concurrent consumers
//	fuzz                       messages of any content
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
package drivertest
