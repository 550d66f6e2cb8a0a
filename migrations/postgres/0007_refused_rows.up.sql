-- +goose Up
-- A few bytes of JSONB can hold numbers of 147,000 digits. Rows of such numbers would make claims and listings fail, or take all
-- memory. These triggers refuse JSON whose text is far longer than its JSONB, or has more than 64 MiB. The library itself writes
-- no such JSON: its limit of a payload is 32 MiB at most, to which PostgreSQL adds spaces. Headers have 256 KiB at most. Workers alone
-- write steps and schedules, and a step may have the results of many children.
--
-- JSONB of less than 90 bytes holds too few numbers, so its text is not made. #> '{}' is the JSONB itself without compression.

-- +goose StatementBegin
DO $$
BEGIN
	CREATE FUNCTION pgqrs_refuse_row() RETURNS trigger LANGUAGE plpgsql AS $body$
	BEGIN
		RAISE EXCEPTION 'pgqrs: a row of % %', TG_TABLE_NAME, TG_ARGV[0]
			USING ERRCODE = 'program_limit_exceeded';
	END
	$body$;
EXCEPTION WHEN duplicate_function THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_messages_payload_size BEFORE INSERT OR UPDATE OF payload ON pgqrs_messages FOR EACH ROW
	WHEN (pg_column_size(NEW.payload #> '{}') >= 90 AND octet_length(NEW.payload::text) > LEAST(8 * pg_column_size(NEW.payload #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_messages_headers_size BEFORE INSERT OR UPDATE OF headers ON pgqrs_messages FOR EACH ROW
	WHEN (pg_column_size(NEW.headers #> '{}') >= 90 AND octet_length(NEW.headers::text) > 262144)
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_input_size BEFORE INSERT OR UPDATE OF input ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.input #> '{}') >= 90 AND octet_length(NEW.input::text) > LEAST(8 * pg_column_size(NEW.input #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_output_size BEFORE INSERT OR UPDATE OF output ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.output #> '{}') >= 90 AND octet_length(NEW.output::text) > LEAST(8 * pg_column_size(NEW.output #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_error_size BEFORE INSERT OR UPDATE OF error ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.error #> '{}') >= 90 AND octet_length(NEW.error::text) > LEAST(8 * pg_column_size(NEW.error #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_signals_payload_size BEFORE INSERT OR UPDATE OF payload ON pgqrs_workflow_signals FOR EACH ROW
	WHEN (pg_column_size(NEW.payload #> '{}') >= 90 AND octet_length(NEW.payload::text) > LEAST(8 * pg_column_size(NEW.payload #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_queues_policy_size BEFORE INSERT OR UPDATE OF policy ON pgqrs_queues FOR EACH ROW
	WHEN (pg_column_size(NEW.policy #> '{}') >= 90 AND octet_length(NEW.policy::text) > LEAST(8 * pg_column_size(NEW.policy #> '{}') + 1100000, 67108864))
	EXECUTE FUNCTION pgqrs_refuse_row('has JSON whose text is too long: it is too large, or its numbers have too many digits');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- A new message without a time, or with the time of a blocked one, would be in no listing. Keys, groups and errors of a new message
-- are bounded too. The library writes shorter ones.

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_messages_new BEFORE INSERT ON pgqrs_messages FOR EACH ROW
	WHEN (NEW.vt IS NULL OR NEW.vt >= '9999-12-31 23:59:59.999+00' AND NEW.parked_vt IS NULL
		OR octet_length(NEW.dedup_key) > 2704 OR octet_length(NEW.group_key) > 2704 OR octet_length(NEW.last_error) > 1048576)
	EXECUTE FUNCTION pgqrs_refuse_row('has a vt, a key, a group or an error that no new message can have');
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (7, 'refused_rows', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
