-- +goose Up
-- What this library adds to the queue. pgqrs 0.15 ignores every column here.

-- +goose StatementBegin
ALTER TABLE pgqrs_queues ADD COLUMN IF NOT EXISTS paused_at TIMESTAMPTZ
-- +goose StatementEnd

-- go_state is 'live' for a worker of this library, 'stopped' once one of its calls has stopped it, and NULL for those
-- of pgqrs 0.15. So a row that is stopped and still 'live' was given up for dead, and may come back.
-- +goose StatementBegin
ALTER TABLE pgqrs_workers ADD COLUMN IF NOT EXISTS go_state TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS priority SMALLINT NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1 AND 2)
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS dedup_key TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS group_key TEXT
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS headers JSONB
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS last_error TEXT
-- +goose StatementEnd

-- claim_ct is half of the fencing token: it only grows, while read_ct (attempts) goes back on release and redrive.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS claim_ct BIGINT NOT NULL DEFAULT 0
-- +goose StatementEnd

-- due_at is when the delivery in hand became due. It is NULL once the message is given back, so that on a
-- deliverable row it says: the last holder never answered.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS due_at TIMESTAMPTZ
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_messages ADD COLUMN IF NOT EXISTS failed_at TIMESTAMPTZ
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

-- Every delivery leaves dead rows behind: vacuum after 1,000 of them or 1 % of the table, without pausing.
-- +goose StatementBegin
ALTER TABLE pgqrs_messages SET (
	fillfactor = 85,
	autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 1000,
	autovacuum_vacuum_cost_delay = 0)
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE pgqrs_workers SET (fillfactor = 50, autovacuum_vacuum_threshold = 500)
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (2, 'queue', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
