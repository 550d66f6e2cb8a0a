-- +goose Up
-- What this library adds to the queue. pgqrs 0.15 ignores every column here.
-- SQLite has no ADD COLUMN IF NOT EXISTS: Install looks for each column first and passes over the ones it finds.

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN paused_at TEXT
-- +goose StatementEnd

-- go_state is 'live' for a worker of this library, 'stopped' once one of its calls has stopped it, and NULL for those
-- of pgqrs 0.15. So a row that is stopped and still 'live' was given up for dead, and may come back.
-- +goose StatementBegin
ALTER TABLE pgqrs_workers ADD COLUMN go_state TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1 AND 2)
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN dedup_key TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN group_key TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN headers TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN last_error TEXT
-- +goose StatementEnd

-- claim_ct is half of the fencing token: it only grows, while read_ct (attempts) goes back on release and redrive.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN claim_ct INTEGER NOT NULL DEFAULT 0
-- +goose StatementEnd

-- due_at is when the delivery in hand became due. It is NULL once the message is given back, so that on a
-- deliverable row it says: the last holder never answered.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN due_at TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN failed_at TEXT
-- +goose StatementEnd

-- Serves the claim: each priority is reached by its own range of (vt, id).
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_claim ON pgqrs_messages (queue_id, priority DESC, vt, id) WHERE archived_at IS NULL
-- +goose StatementEnd

-- Serves worker listings, the release of strays and the clearing of expired owners.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_held ON pgqrs_messages (consumer_worker_id) WHERE archived_at IS NULL AND consumer_worker_id IS NOT NULL
-- +goose StatementEnd

-- One unfinished message a key.
-- +goose StatementBegin
CREATE UNIQUE INDEX IF NOT EXISTS pgqrs_messages_key ON pgqrs_messages (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL
-- +goose StatementEnd

-- Serves retention and the listing of archived messages.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_archived ON pgqrs_messages (queue_id, archived_at, id) WHERE archived_at IS NOT NULL AND failed_at IS NULL
-- +goose StatementEnd

-- Serves the dead letters.
-- +goose StatementBegin
CREATE INDEX IF NOT EXISTS pgqrs_messages_dead ON pgqrs_messages (queue_id, failed_at, id) WHERE failed_at IS NOT NULL
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (2, 'queue', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
