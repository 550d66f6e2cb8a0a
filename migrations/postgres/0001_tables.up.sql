-- +goose Up
-- The tables that pgqrs 0.15 has, by its names and types, so that Go, Rust and Python share them.
-- Messages carry no foreign keys on a fresh install: their row locks on queues and workers cost throughput.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_migrations (
	version BIGINT PRIMARY KEY,
	name TEXT NOT NULL,
	oldest BIGINT NOT NULL,
	applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
-- +goose StatementEnd

-- Uninstall drops a type with this comment only: one of the name may have been there before.
-- +goose StatementBegin
DO $$
BEGIN
	IF to_regtype('worker_status') IS NULL THEN
		CREATE TYPE worker_status AS ENUM ('ready', 'polling', 'suspended', 'interrupted', 'stopped');
		COMMENT ON TYPE worker_status IS 'made by pgqrs';
	END IF;
	IF to_regtype('pgqrs_workflow_status') IS NULL THEN
		CREATE TYPE pgqrs_workflow_status AS ENUM ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING', 'CANCELLED', 'SUCCESS', 'ERROR');
		COMMENT ON TYPE pgqrs_workflow_status IS 'made by pgqrs';
	END IF;
END
$$
-- +goose StatementEnd

-- pgqrs 0.15.3 made the type without these two.
-- +goose StatementBegin
ALTER TYPE pgqrs_workflow_status ADD VALUE IF NOT EXISTS 'CANCELLING'
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TYPE pgqrs_workflow_status ADD VALUE IF NOT EXISTS 'CANCELLED'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_queues (
	id BIGSERIAL PRIMARY KEY,
	queue_name VARCHAR NOT NULL UNIQUE,
	created_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workers (
	id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	queue_id BIGINT REFERENCES pgqrs_queues (id),
	started_at TIMESTAMPTZ DEFAULT now(),
	heartbeat_at TIMESTAMPTZ DEFAULT now(),
	shutdown_at TIMESTAMPTZ,
	status worker_status NOT NULL DEFAULT 'ready'
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_messages (
	id BIGSERIAL PRIMARY KEY,
	queue_id BIGINT NOT NULL,
	payload JSONB NOT NULL,
	vt TIMESTAMPTZ DEFAULT now(),
	enqueued_at TIMESTAMPTZ DEFAULT now(),
	read_ct INT DEFAULT 0,
	dequeued_at TIMESTAMPTZ,
	archived_at TIMESTAMPTZ,
	producer_worker_id BIGINT,
	consumer_worker_id BIGINT
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflows (
	id BIGSERIAL PRIMARY KEY,
	name VARCHAR(255) NOT NULL UNIQUE,
	queue_id BIGINT NOT NULL REFERENCES pgqrs_queues (id),
	created_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflow_runs (
	id BIGSERIAL PRIMARY KEY,
	workflow_id BIGINT NOT NULL REFERENCES pgqrs_workflows (id) ON DELETE CASCADE,
	message_id BIGINT NOT NULL UNIQUE,
	status pgqrs_workflow_status NOT NULL,
	input JSONB,
	output JSONB,
	error JSONB,
	created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	started_at TIMESTAMPTZ,
	paused_at TIMESTAMPTZ,
	completed_at TIMESTAMPTZ,
	worker_id BIGINT
)
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_workflow_steps (
	id BIGSERIAL PRIMARY KEY,
	run_id BIGINT NOT NULL REFERENCES pgqrs_workflow_runs (id) ON DELETE CASCADE,
	step_name VARCHAR(255) NOT NULL,
	status pgqrs_workflow_status NOT NULL,
	input JSONB,
	output JSONB,
	error JSONB,
	created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
	started_at TIMESTAMPTZ,
	completed_at TIMESTAMPTZ,
	retry_count INTEGER NOT NULL DEFAULT 0,
	retry_at TIMESTAMPTZ,
	last_retry_at TIMESTAMPTZ,
	UNIQUE (run_id, step_name)
)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (1, 'tables', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
