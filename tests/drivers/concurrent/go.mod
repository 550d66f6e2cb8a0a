module github.com/pgqrs/pgqrs-go/tests/drivers/concurrent

go 1.26.0

require (
	github.com/ncruces/go-sqlite3 v0.18.4
	github.com/pgqrs/pgqrs-go v0.0.0
)

// ncruces/go-sqlite3 v0.18.4 is the newest release that embeds SQLite's begin-concurrent branch.
// It asks for wazero v1.8.0, whose compiled code traps on some Intel processors
// ("wasm error: out of bounds memory access"), so a newer release is required here.
require (
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/tetratelabs/wazero v1.12.0 // indirect
	golang.org/x/sys v0.44.0 // indirect
)

replace github.com/pgqrs/pgqrs-go => ../../../
