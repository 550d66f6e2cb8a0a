// Package interop tests that this library and pgqrs 0.15.3, the Rust library
// with Python bindings, work on each other's tables.
//
// The tests run PyPI's release in a Python process and talk to it in lines of
// JSON: on PostgreSQL its wheel, and on SQLite a build of its source with that
// feature, which the wheels lack. A Python virtual environment for each is made
// once, below the user's cache directory; that needs Python 3.11 with venv, and
// cargo and a C compiler for SQLite. Where they are missing the tests are
// skipped, but fail if CI is set in the environment.
//
// Each subtest's name is a sentence that it proves; docs/INTEROP.md is made of
// them. See them with
//
//	go test -v ./interop
package interop
