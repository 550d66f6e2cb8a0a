module github.com/pgqrs/pgqrs-go/examples

go 1.26.0

require (
	github.com/ncruces/go-sqlite3 v0.35.6
	github.com/pgqrs/pgqrs-go v0.0.0
	github.com/pgqrs/pgqrs-go/cronpgqrs v0.0.0
)

require (
	github.com/ncruces/go-sqlite3-wasm/v6 v6.3.35304 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/robfig/cron/v3 v3.0.1 // indirect
	golang.org/x/sys v0.48.0 // indirect
)

replace github.com/pgqrs/pgqrs-go => ../

replace github.com/pgqrs/pgqrs-go/cronpgqrs => ../cronpgqrs
