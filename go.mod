module github.com/pgqrs/pgqrs-go

go 1.24

require github.com/DATA-DOG/go-sqlmock v1.5.2
