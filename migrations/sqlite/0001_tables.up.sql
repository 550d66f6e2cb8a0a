-- +goose Up
-- The tables that pgqrs 0.15 has, by its names and types, so that Go, Rust and Python share them.
-- Timestamps are UTC text, YYYY-MM-DD HH:MM:SS[.ffffff]. AUTOINCREMENT stays: a reused id would defeat the fencing token.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_migrations (
	version INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	oldest INTEGER NOT NULL,
	applied_at TEXT NOT NULL DEFAULT (datetime('now'))
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_queues (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	queue_name TEXT NOT NULL UNIQUE,
	created_at TEXT NOT NULL DEFAULT (datetime('now'))
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workers (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE,
	queue_id INTEGER REFERENCES pgqrs_queues (id),
	started_at TEXT NOT NULL DEFAULT (datetime('now')),
	heartbeat_at TEXT NOT NULL DEFAULT (datetime('now')),
	shutdown_at TEXT,
	status TEXT NOT NULL DEFAULT 'ready' CHECK (status IN ('ready', 'polling', 'suspended', 'interrupted', 'stopped'))
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_messages (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	queue_id INTEGER NOT NULL,
	payload TEXT NOT NULL,
	vt TEXT DEFAULT (datetime('now')),
	enqueued_at TEXT DEFAULT (datetime('now')),
	read_ct INTEGER DEFAULT 0,
	dequeued_at TEXT,
	archived_at TEXT,
	producer_worker_id INTEGER,
	consumer_worker_id INTEGER
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflows (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE,
	queue_id INTEGER NOT NULL REFERENCES pgqrs_queues (id),
	created_at TEXT NOT NULL DEFAULT (datetime('now'))
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflow_runs (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	workflow_id INTEGER NOT NULL REFERENCES pgqrs_workflows (id),
	message_id INTEGER NOT NULL UNIQUE,
	status TEXT NOT NULL,
	input TEXT,
	output TEXT,
	error TEXT,
	created_at TEXT NOT NULL DEFAULT (datetime('now')),
	updated_at TEXT NOT NULL DEFAULT (datetime('now')),
	started_at TEXT,
	paused_at TEXT,
	completed_at TEXT,
	worker_id INTEGER
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflow_steps (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	run_id INTEGER NOT NULL REFERENCES pgqrs_workflow_runs (id),
	step_name TEXT NOT NULL,
	status TEXT NOT NULL,
	input TEXT,
	output TEXT,
	error TEXT,
	created_at TEXT NOT NULL DEFAULT (datetime('now')),
	updated_at TEXT NOT NULL DEFAULT (datetime('now')),
	started_at TEXT,
	completed_at TEXT,
	retry_count INTEGER NOT NULL DEFAULT 0,
	retry_at TEXT,
	last_retry_at TEXT,
	UNIQUE (run_id, step_name)
)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (1, 'tables', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
