-- +goose Up
-- Policies of queues. pgqrs 0.15 ignores every column here.

-- What operators see of a queue's policy: JSON, written by the code that handles the queue. NULL: no code has.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN policy TEXT
-- +goose StatementEnd

-- Limits that hold in all processes. NULL: none. An interval is the microseconds between two messages; rate_at is when the next
-- one would be due if they came evenly, in microseconds since 1970, and may be ahead of the clock by what rate_burst allows.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN max_held INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN rate_interval INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN rate_burst INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN rate_at INTEGER
-- +goose StatementEnd

-- The same for each group of the queue. group_skip: whether a failed message lets its group go on while it waits for its retry.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN group_limit INTEGER NOT NULL DEFAULT 1
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN group_interval INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN group_burst INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN group_skip INTEGER NOT NULL DEFAULT 0
-- +goose StatementEnd

-- The name of the queue that gets a copy of what dies here.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN dead_letter TEXT
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (4, 'policies', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
