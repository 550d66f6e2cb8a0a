// Package orm tests that a Store works in the transactions of libraries on top of database/sql, and refuses their pools.
package orm
