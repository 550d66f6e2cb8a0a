-- +goose Up
-- What this library adds to workflows. pgqrs 0.15 ignores every column and table here.

-- woken says that something happened to the message's run while the message was leased, so that it must not be put off.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN woken INTEGER NOT NULL DEFAULT 0
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_workflow_runs ADD COLUMN run_key TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_workflow_runs ADD COLUMN parent_run_id INTEGER
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_workflow_runs ADD COLUMN parent_step TEXT
-- +goose StatementEnd

-- execution_ct is 1 while a run is in its first execution and has no steps to read; after that it only says "more than one".
-- +goose StatementBegin
ALTER TABLE pgqrs_workflow_runs ADD COLUMN execution_ct INTEGER NOT NULL DEFAULT 0
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_workflow_runs ADD COLUMN warning TEXT
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflow_signals (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	run_id INTEGER NOT NULL,
	name TEXT NOT NULL,
	payload TEXT NOT NULL,
	step_name TEXT,
	created_at TEXT NOT NULL DEFAULT (datetime('now'))
)
-- +goose StatementEnd

-- Signals of a run that nothing has waited for yet come first.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_workflow_signals_run ON pgqrs_workflow_signals (run_id, name, step_name, id)
-- +goose StatementEnd

-- One run a key, for as long as the run is kept.
-- +goose StatementBegin
CREATE UNIQUE INDEX IF NOT EXISTS pgqrs_workflow_runs_key ON pgqrs_workflow_runs (workflow_id, run_key) WHERE run_key IS NOT NULL
-- +goose StatementEnd

-- Serves listings by status.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_workflow_runs_status ON pgqrs_workflow_runs (workflow_id, status, id)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_workflow_runs_parent ON pgqrs_workflow_runs (parent_run_id, parent_step, id) WHERE parent_run_id IS NOT NULL
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (3, 'workflows', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
