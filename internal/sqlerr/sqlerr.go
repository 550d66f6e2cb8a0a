// Package sqlerr classifies the errors of databases. It uses PostgreSQL's codes, the types of
// drivers and of package net, and the texts of SQLite, whose drivers have no codes in common.
package sqlerr

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
)

// State returns PostgreSQL's error code, which lib/pq and pgx both offer by a method.
func State(err error) (state string) {
	defer func() {
		if recover() != nil {
			state = "" // it is not the error of a driver
		}
	}()
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}

// Retryable reports whether PostgreSQL's code asks the client to try again: serialization_failure,
// deadlock_detected.
func Retryable(state string) bool { return state == "40001" || state == "40P01" }

// Unreachable reports whether an error says that the database or the connection is gone, or that
// the database accepts no more connections.
func Unreachable(err error) bool {
	var network *net.OpError
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) {
		return true
	}
	// Connection exceptions, insufficient resources, operator intervention, system errors, and
	// idle_in_transaction_session_timeout.
	state := State(err)
	return slices.ContainsFunc([]string{"08", "53", "57P", "58", "25P03"}, func(class string) bool { return strings.HasPrefix(state, class) })
}

// types are the types of PostgreSQL that the library makes.
var types = []string{"worker_status", "pgqrs_workflow_status"}

// Missing reports whether the error says that a table, a column or a type of the library does not
// exist.
func Missing(err error) bool {
	switch State(err) {
	case "42P01", "42703", "3F000": // undefined table, column, schema
		return true
	case "42704": // undefined object, which may also be a role or a setting of the connection
		return Contains(err, types)
	case "":
	default:
		return false
	}
	return Contains(err, []string{"no such table: pgqrs", "no such column", "has no column named", "no such table: main.pgqrs"})
}

// Contains reports whether the text of an error contains one of the texts, which are in lower case.
func Contains(err error, texts []string) bool {
	text := strings.ToLower(err.Error())
	if _, after, quoting := strings.Cut(text, "sqlite failure: "); quoting {
		text = after // go-libsql quotes the statement before its error, with texts of users in it
	}
	for _, t := range texts {
		if strings.Contains(text, t) {
			return true
		}
	}
	return false
}

// Untranslatable reports whether PostgreSQL says that the database's encoding lacks a character.
func Untranslatable(err error) bool {
	switch State(err) {
	case "22P05", "22021", // untranslatable_character, character_not_in_repertoire
		"0A000": // feature_not_supported: an escape in JSON, without an encoding
		return true
	}
	return false
}

// Unprepared reports whether an error says that the server connection has no such prepared
// statement, or another one of that name.
func Unprepared(err error) bool {
	state := State(err)
	return state == "26000" || state == "42P05"
}

// StateReadOnly is PostgreSQL's read_only_sql_transaction.
const StateReadOnly = "25006"

// ReadOnly reports whether PostgreSQL refuses to write, as a standby does.
func ReadOnly(err error) bool { return State(err) == StateReadOnly }

// Denied reports whether PostgreSQL says that the user lacks a privilege.
func Denied(err error) bool { return State(err) == "42501" }

// NoSchema reports whether PostgreSQL found no schema to create a table in.
func NoSchema(err error) bool { return State(err) == "3F000" }

// Unsupported reports whether PostgreSQL says that it lacks a feature.
func Unsupported(err error) bool { return State(err) == "0A000" }

// Duplicate reports whether PostgreSQL says that a unique key exists.
func Duplicate(err error) bool { return State(err) == "23505" }

// Locked reports whether PostgreSQL gave up waiting for a lock.
func Locked(err error) bool { return State(err) == "55P03" }

// LimitExceeded reports whether PostgreSQL says that a limit of the server is exceeded, as its
// queue of notifications.
func LimitExceeded(err error) bool { return State(err) == "54000" }

// TransactionFailed reports whether PostgreSQL says that an earlier error has ended the
// transaction.
func TransactionFailed(err error) bool { return State(err) == "25P02" }

// abortedClasses are the classes of PostgreSQL's codes for errors of the work, not of the database.
// They cover data, constraints, the transaction, names, privileges, sizes, and errors that triggers
// raise.
var abortedClasses = []string{"22", "23", "25P02", "27", "2F", "38", "39", "42", "44", "54", "P0"}

// Aborted reports whether a transaction failed at its end because of its own work. For example, an
// error was ignored, a deferred constraint is violated, or a trigger refuses the commit.
func Aborted(err error) bool {
	state := State(err)
	if state == "" {
		return Contains(err, []string{"constraint failed"})
	}
	return !Unprepared(err) && slices.ContainsFunc(abortedClasses, func(class string) bool { return strings.HasPrefix(state, class) })
}

// NoSavepoint reports whether an engine of SQLite's family says that a savepoint is gone.
func NoSavepoint(err error) bool { return Contains(err, []string{"no such savepoint"}) }

// NoFunction reports whether an engine of SQLite's family says that it lacks a function.
func NoFunction(err error) bool { return Contains(err, []string{"no such function"}) }

// NoConcurrent reports whether an engine of SQLite's family has no BEGIN CONCURRENT.
func NoConcurrent(err error) bool { return Contains(err, []string{`near "concurrent": syntax error`}) }

// NoMVCC reports whether Turso refuses BEGIN CONCURRENT because the database is in WAL mode.
func NoMVCC(err error) bool { return Contains(err, []string{"only supported when mvcc is enabled"}) }
