// Package sqlerr classifies the errors of databases: by PostgreSQL's codes, by the types of drivers and of
// package net, and by the texts of SQLite, whose drivers have no codes in common.
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
			state = "" // it is not a driver's
		}
	}()
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}

// Retryable reports whether PostgreSQL's code asks to try again: serialization_failure, deadlock_detected.
func Retryable(state string) bool { return state == "40001" || state == "40P01" }

// Unreachable reports whether an error says that the database or the
// connection to it is gone, or that it takes no more connections.
func Unreachable(err error) bool {
	var network *net.OpError
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) {
		return true
	}
	// Connection exceptions, insufficient resources, the server's coming and going, errors of its system, idle_in_transaction_session_timeout.
	state := State(err)
	return slices.ContainsFunc([]string{"08", "53", "57P", "58", "25P03"}, func(class string) bool { return strings.HasPrefix(state, class) })
}

// Missing reports whether the error says that a table or column is not there.
func Missing(err error) bool {
	switch State(err) {
	case "42P01", "42703", "3F000", "42704": // undefined table, column, schema, type
		return true
	case "":
	default:
		return false
	}
	return Contains(err, []string{"no such table: pgqrs", "no such column", "has no column named", "no such table: main.pgqrs"})
}

func Contains(err error, texts []string) bool {
	text := strings.ToLower(err.Error())
	if _, after, quoting := strings.Cut(text, "sqlite failure: "); quoting {
		text = after // go-libsql quotes the statement before it, and what users wrote in theirs
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

// Unprepared reports whether an error says that a prepared statement is not on
// the server connection, or that another is.
func Unprepared(err error) bool {
	state := State(err)
	return state == "26000" || state == "42P05"
}
