-- +goose Up
-- Schedules: what is enqueued again and again, and when. pgqrs 0.15 ignores both tables.

-- What a schedule enqueues stands here too, so that it can be run by hand from a program without its code. tick_ct counts the
-- changes that a worker must have seen. next_at is NULL for a rule that has no more instants.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_schedules (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE,
	queue_name TEXT NOT NULL,
	starts_runs INTEGER NOT NULL DEFAULT 0,
	payload TEXT NOT NULL,
	priority INTEGER NOT NULL DEFAULT 0,
	dedup_key TEXT,
	headers TEXT,
	rule TEXT NOT NULL,
	zone TEXT NOT NULL DEFAULT 'UTC',
	catch_up INTEGER NOT NULL DEFAULT 1,
	next_at TEXT,
	tick_ct INTEGER NOT NULL DEFAULT 0,
	paused_at TEXT,
	resumed_at TEXT,
	created_at TEXT NOT NULL DEFAULT (datetime('now')),
	updated_at TEXT NOT NULL DEFAULT (datetime('now'))
)
-- +goose StatementEnd

-- The history of the schedules' runs. held says that nothing was stored, since the key was taken.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_schedule_runs (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	schedule_id INTEGER NOT NULL,
	due_at TEXT NOT NULL,
	ran_at TEXT NOT NULL DEFAULT (datetime('now')),
	by_hand INTEGER NOT NULL DEFAULT 0,
	held INTEGER NOT NULL DEFAULT 0,
	message_id INTEGER,
	run_id INTEGER
)
-- +goose StatementEnd

-- An instant of a schedule is run once, whatever the clock does.
-- +goose StatementBegin
CREATE UNIQUE INDEX IF NOT EXISTS pgqrs_schedule_runs_once ON pgqrs_schedule_runs (schedule_id, due_at) WHERE by_hand = 0
-- +goose StatementEnd

-- Serves the history and its pruning.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_schedule_runs_due ON pgqrs_schedule_runs (schedule_id, due_at, id)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (6, 'schedules', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
