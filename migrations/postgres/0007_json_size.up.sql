-- +goose Up
-- A few bytes of JSONB can hold numbers of 147,000 digits. Rows of such numbers would make claims and listings fail, or take all
-- memory. These triggers refuse JSON whose text is far longer than its JSONB. The library itself writes no such JSON.
--
-- JSONB of less than 90 bytes holds too few numbers, so its text is not made. #> '{}' is the JSONB itself without compression.

-- +goose StatementBegin
DO $$
BEGIN
	CREATE FUNCTION pgqrs_refuse_json() RETURNS trigger LANGUAGE plpgsql AS $body$
	BEGIN
		RAISE EXCEPTION 'pgqrs: a JSON value of % is too long as text: its numbers have too many digits', TG_TABLE_NAME
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
	WHEN (pg_column_size(NEW.payload #> '{}') >= 90 AND octet_length(NEW.payload::text) > 8 * pg_column_size(NEW.payload #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_messages_headers_size BEFORE INSERT OR UPDATE OF headers ON pgqrs_messages FOR EACH ROW
	WHEN (pg_column_size(NEW.headers #> '{}') >= 90 AND octet_length(NEW.headers::text) > 8 * pg_column_size(NEW.headers #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_input_size BEFORE INSERT OR UPDATE OF input ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.input #> '{}') >= 90 AND octet_length(NEW.input::text) > 8 * pg_column_size(NEW.input #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_output_size BEFORE INSERT OR UPDATE OF output ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.output #> '{}') >= 90 AND octet_length(NEW.output::text) > 8 * pg_column_size(NEW.output #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_runs_error_size BEFORE INSERT OR UPDATE OF error ON pgqrs_workflow_runs FOR EACH ROW
	WHEN (pg_column_size(NEW.error #> '{}') >= 90 AND octet_length(NEW.error::text) > 8 * pg_column_size(NEW.error #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_steps_input_size BEFORE INSERT OR UPDATE OF input ON pgqrs_workflow_steps FOR EACH ROW
	WHEN (pg_column_size(NEW.input #> '{}') >= 90 AND octet_length(NEW.input::text) > 8 * pg_column_size(NEW.input #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_steps_output_size BEFORE INSERT OR UPDATE OF output ON pgqrs_workflow_steps FOR EACH ROW
	WHEN (pg_column_size(NEW.output #> '{}') >= 90 AND octet_length(NEW.output::text) > 8 * pg_column_size(NEW.output #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_steps_error_size BEFORE INSERT OR UPDATE OF error ON pgqrs_workflow_steps FOR EACH ROW
	WHEN (pg_column_size(NEW.error #> '{}') >= 90 AND octet_length(NEW.error::text) > 8 * pg_column_size(NEW.error #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_workflow_signals_payload_size BEFORE INSERT OR UPDATE OF payload ON pgqrs_workflow_signals FOR EACH ROW
	WHEN (pg_column_size(NEW.payload #> '{}') >= 90 AND octet_length(NEW.payload::text) > 8 * pg_column_size(NEW.payload #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_schedules_payload_size BEFORE INSERT OR UPDATE OF payload ON pgqrs_schedules FOR EACH ROW
	WHEN (pg_column_size(NEW.payload #> '{}') >= 90 AND octet_length(NEW.payload::text) > 8 * pg_column_size(NEW.payload #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_schedules_headers_size BEFORE INSERT OR UPDATE OF headers ON pgqrs_schedules FOR EACH ROW
	WHEN (pg_column_size(NEW.headers #> '{}') >= 90 AND octet_length(NEW.headers::text) > 8 * pg_column_size(NEW.headers #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
	CREATE TRIGGER pgqrs_queues_policy_size BEFORE INSERT OR UPDATE OF policy ON pgqrs_queues FOR EACH ROW
	WHEN (pg_column_size(NEW.policy #> '{}') >= 90 AND octet_length(NEW.policy::text) > 8 * pg_column_size(NEW.policy #> '{}') + 1100000)
	EXECUTE FUNCTION pgqrs_refuse_json();
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (7, 'json_size', 1) ON CONFLICT DO NOTHING
-- +goose StatementEnd
