// Package orm tests a Store in the transactions of libraries on top of database/sql. The Store must
// refuse the pools of these libraries.
package orm
