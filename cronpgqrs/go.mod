module github.com/pgqrs/pgqrs-go/cronpgqrs

go 1.24

replace github.com/pgqrs/pgqrs-go => ../

require (
	github.com/pgqrs/pgqrs-go v0.0.0-00010101000000-000000000000
	github.com/robfig/cron/v3 v3.0.1
)
