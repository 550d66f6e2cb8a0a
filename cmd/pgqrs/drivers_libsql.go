//go:build libsql

package main

import _ "github.com/tursodatabase/go-libsql"
