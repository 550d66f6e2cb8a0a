module github.com/pgqrs/pgqrs-go/notifypgqrs

go 1.24

replace github.com/pgqrs/pgqrs-go => ../

require (
	github.com/lib/pq v1.10.9
	github.com/pgqrs/pgqrs-go v0.0.0-00010101000000-000000000000
)
