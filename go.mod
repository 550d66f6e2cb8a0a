module github.com/pgqrs/pgqrs-go

go 1.24
