-- +goose Up
-- Schedules: what is enqueued again and again, and when. pgqrs 0.15 ignores both tables.

-- What a schedule enqueues stands here too, so that it can be run by hand from a program without its code. tick_ct counts the
-- changes that a worker must have seen. next_at is NULL for a rule that has no more instants.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_schedules (
	id BIGSERIAL PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	queue_name TEXT NOT NULL,
	starts_runs BOOLEAN NOT NULL DEFAULT false,
	payload JSONB NOT NULL,
	priority SMALLINT NOT NULL DEFAULT 0,
	dedup_key TEXT,
	headers JSONB,
	rule TEXT NOT NULL,
	zone TEXT NOT NULL DEFAULT 'UTC',
	catch_up INTEGER NOT NULL DEFAULT 1,
	next_at TIMESTAMPTZ,
	tick_ct BIGINT NOT NULL DEFAULT 0,
	paused_at TIMESTAMPTZ,
	resumed_at TIMESTAMPTZ,
	created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
-- +goose StatementEnd

-- The history of the schedules' runs. held says that nothing was stored, since the key was taken.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_schedule_runs (
	id BIGSERIAL PRIMARY KEY,
	schedule_id BIGINT NOT NULL,
	due_at TIMESTAMPTZ NOT NULL,
	ran_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	by_hand BOOLEAN NOT NULL DEFAULT false,
	held BOOLEAN NOT NULL DEFAULT false,
	message_id BIGINT,
	run_id BIGINT
)
-- +goose StatementEnd

-- An instant of a schedule is run once, whatever the clock does.
-- +goose StatementBegin
CREATE UNIQUE INDEX IF NOT EXISTS pgqrs_schedule_runs_once ON pgqrs_schedule_runs (schedule_id, due_at) WHERE NOT by_hand
-- +goose StatementEnd

-- Serves the history and its pruning.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_schedule_runs_due ON pgqrs_schedule_runs (schedule_id, due_at, id)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (6, 'schedules', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
