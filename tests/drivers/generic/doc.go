// Package generic runs the conformance suite on any database/sql driver, named by the environment:
//
//	PGQRS_TEST_DRIVER     the name the driver registers
//	PGQRS_TEST_DIALECT    postgres, sqlite or turso
//	PGQRS_TEST_DSN        the data source name
//
// A driver must be linked into the test, so add a file driver_test.go to this directory (git
// ignores it) and fetch the driver:
//
//	package generic_test
//
//	import _ "example.com/the/driver"
//
//	go get example.com/the/driver
//
// For sqlite and turso the DSN names a file, and {dir} in it stands for a new directory in each
// test. It should also set what your application sets on each connection: WAL, a busy timeout,
// foreign keys. For example, with the driver of modernc.org/sqlite:
//
//	PGQRS_TEST_DRIVER=sqlite PGQRS_TEST_DIALECT=sqlite \
//	PGQRS_TEST_DSN='file:{dir}/q.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)' \
//	go test ./drivers/generic
//
// For postgres the DSN names a database in which the tests may create schemas, which they drop
// again. The tests add the parameter search_path to it. Without a DSN they start a server of their
// own.
package generic
