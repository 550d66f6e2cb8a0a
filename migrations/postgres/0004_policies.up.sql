-- +goose Up
-- Policies of queues. pgqrs 0.15 ignores every column here.

-- What operators see of a queue's policy: JSON, written by the code that handles the queue. NULL: no code has.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS policy JSONB
-- +goose StatementEnd

-- Limits that hold in all processes. NULL: none. An interval is the microseconds between two messages; rate_at is when the next
-- one would be due if they came evenly, and may be ahead of the clock by what rate_burst allows.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS max_held INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS rate_interval BIGINT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS rate_burst INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS rate_at TIMESTAMPTZ
-- +goose StatementEnd

-- The same for each group of the queue. group_skip: whether a failed message lets its group go on while it waits for its retry.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS group_limit INTEGER NOT NULL DEFAULT 1
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS group_interval BIGINT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS group_burst INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS group_skip BOOLEAN NOT NULL DEFAULT false
-- +goose StatementEnd

-- The name of the queue that gets a copy of what dies here.
-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS dead_letter TEXT
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (4, 'policies', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
