module github.com/pgqrs/pgqrs-go/mockpgqrs

go 1.24

replace github.com/pgqrs/pgqrs-go => ../

require (
	github.com/DATA-DOG/go-sqlmock v1.5.2
	github.com/pgqrs/pgqrs-go v0.0.0-00010101000000-000000000000
)
