module github.com/pgqrs/pgqrs-go/otelpgqrs

go 1.24

replace github.com/pgqrs/pgqrs-go => ../

require (
	github.com/pgqrs/pgqrs-go v0.0.0-00010101000000-000000000000
	go.opentelemetry.io/otel v1.28.0
	go.opentelemetry.io/otel/metric v1.28.0
	go.opentelemetry.io/otel/trace v1.28.0
)

require (
	github.com/go-logr/logr v1.4.2 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
)
