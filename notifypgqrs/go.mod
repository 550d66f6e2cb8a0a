module github.com/pgqrs/pgqrs-go/notifypgqrs

go 1.26.0

replace github.com/pgqrs/pgqrs-go => ../

require (
	github.com/lib/pq v1.12.3
	github.com/pgqrs/pgqrs-go v0.0.0-00010101000000-000000000000
)
