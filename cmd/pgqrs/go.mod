module github.com/pgqrs/pgqrs-go/cmd/pgqrs

go 1.26.0

require (
	github.com/lib/pq v1.12.3
	github.com/ncruces/go-sqlite3 v0.35.6
	github.com/pgqrs/pgqrs-go v0.0.0
	github.com/urfave/cli/v3 v3.14.0
)

require (
	github.com/ncruces/go-sqlite3-wasm/v6 v6.3.35304 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/pgqrs/pgqrs-go => ../../
