-- +goose Up
-- Groups, whose messages are worked one after the other, and batches, whose end sends a message. pgqrs 0.15 ignores every
-- column and table here.

-- A message that must wait for others is blocked: its vt is the end of the year 9999, so that no claim sees it, and parked_vt is
-- when it is due by itself. It is NULL in all others.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS parked_vt TIMESTAMPTZ
-- +goose StatementEnd

-- batch_id is the id of the message that waits for this one and the others of its batch.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS batch_id BIGINT
-- +goose StatementEnd

-- Whoever enqueues to a group, or lets its next message go, holds the lock of its row. next_at is when its next message would be
-- due if they came evenly at the group's rate.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS pgqrs_groups (
	queue_id BIGINT NOT NULL,
	group_key TEXT NOT NULL,
	next_at TIMESTAMPTZ,
	touched_at TIMESTAMPTZ NOT NULL,
	PRIMARY KEY (queue_id, group_key)
)
-- +goose StatementEnd

-- Serves the count of a group's messages that are not blocked.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_group ON pgqrs_messages (queue_id, group_key, id) WHERE archived_at IS NULL AND group_key IS NOT NULL AND parked_vt IS NULL
-- +goose StatementEnd

-- Serves what a group lets go next: the first by id, and where failed messages are passed over, the first to be due. Messages
-- that wait for a batch have no group.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_blocked ON pgqrs_messages (queue_id, group_key, id) WHERE archived_at IS NULL AND parked_vt IS NOT NULL
-- +goose StatementEnd

-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_parked ON pgqrs_messages (queue_id, group_key, parked_vt, id) WHERE archived_at IS NULL AND parked_vt IS NOT NULL
-- +goose StatementEnd

-- Serves the question whether a batch is done.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_batch ON pgqrs_messages (batch_id, archived_at) WHERE batch_id IS NOT NULL
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_groups SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (5, 'groups', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
