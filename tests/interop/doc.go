// Package interop tests that this library and pgqrs 0.15.3 work on each other's tables. pgqrs
// 0.15.3 is the Rust library with Python bindings.
//
// The tests run the release from PyPI in a Python process and exchange lines of JSON with it. On
// PostgreSQL they use the wheel. On SQLite they use a build of its source, because the wheels lack
// SQLite. A Python virtual environment for each is made once, in the user's cache directory. It
// needs Python 3.11 with venv. SQLite also needs cargo and a C compiler. If anything is missing the
// tests fail if CI is set in the environment, and are skipped otherwise.
//
// The name of each subtest is a sentence that it proves. docs/INTEROP.md consists of these
// sentences. To see them, run
//
//	go test -v ./interop
package interop
