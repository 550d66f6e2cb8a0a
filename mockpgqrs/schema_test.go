package mockpgqrs

import (
	"context"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

var schemaOperations = []operation{{
	name: "Install", noTx: true, once: true,
	expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectInstall(mock, d) },
	call:   func(ctx context.Context, s *pgqrs.Store) error { return s.Install(ctx) },
}}
