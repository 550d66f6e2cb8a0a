module github.com/pgqrs/pgqrs-go/drivertest/concurrent

go 1.26.0

require (
	github.com/ncruces/go-sqlite3 v0.18.4
	github.com/pgqrs/pgqrs-go v0.0.0
)

require (
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/tetratelabs/wazero v1.8.0 // indirect
	golang.org/x/sys v0.25.0 // indirect
)

replace github.com/pgqrs/pgqrs-go => ../../
