package pgqrs

var postgresSchemaTexts = schemaSQL{
	lock: `/* pgqrs:schema.lock */ SELECT pg_advisory_xact_lock(7021870436)`,
	settings: map[string]string{
		"fsync":              `/* pgqrs:schema.fsync */ SELECT current_setting('fsync')`,
		"synchronous_commit": `/* pgqrs:schema.synchronous_commit */ SELECT current_setting('synchronous_commit')`,
		"read_only":          `/* pgqrs:schema.read_only */ SELECT current_setting('transaction_read_only')`,
	},
	encoding: `/* pgqrs:schema.encoding */ SELECT current_setting('client_encoding')`,
	engine:   `/* pgqrs:schema.engine */ SELECT 'PostgreSQL ' || current_setting('server_version')`,
	objects: `/* pgqrs:schema.objects */
		WITH known AS (
			SELECT to_regclass(name) AS oid
			FROM (VALUES ('pgqrs_migrations'), ('pgqrs_queues'), ('pgqrs_workers'), ('pgqrs_messages'),
				('pgqrs_workflows'), ('pgqrs_workflow_runs'), ('pgqrs_workflow_steps'), ('pgqrs_workflow_signals'), ('pgqrs_schedules'), ('pgqrs_schedule_runs'), ('pgqrs_groups'), ('_sqlx_migrations'), ('pgqrs_schema_version')) AS t (name)
		), tables AS (
			SELECT c.oid, c.relname, c.relkind FROM known JOIN pg_class c ON c.oid = known.oid
		), types AS (
			SELECT t.oid, t.typname, t.typtype FROM pg_type t WHERE t.oid IN (to_regtype('worker_status'), to_regtype('pgqrs_workflow_status'))
		)
		SELECT CASE WHEN relkind IN ('r', 'p') THEN 'table' ELSE 'other' END, relname::text, CASE WHEN relkind IN ('r', 'p') THEN '' WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'relation' END FROM tables
		UNION ALL
		SELECT CASE typtype WHEN 'e' THEN 'type' ELSE 'other' END, typname::text, CASE typtype WHEN 'e' THEN '' WHEN 'c' THEN 'table or composite type' ELSE 'type that is no enumeration' END FROM types
		UNION ALL
		SELECT 'column', t.relname::text, a.attname::text FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
		UNION ALL
		SELECT 'index', t.relname::text, i.relname::text FROM tables t JOIN pg_index x ON x.indrelid = t.oid AND x.indisvalid JOIN pg_class i ON i.oid = x.indexrelid
		UNION ALL
		SELECT 'value', t.typname::text, e.enumlabel::text FROM types t JOIN pg_enum e ON e.enumtypid = t.oid`,
	// The first rows are of tables, the next ones of sequences, and the last one is of a schema that search_path names: without
	// USAGE of it no table in it is found.
	rights: []string{`/* pgqrs:schema.rights */
		WITH needed (name, rights, sequence) AS (
			VALUES ('pgqrs_migrations', '{SELECT}'::text[], false),
				('pgqrs_queues', '{SELECT,INSERT,UPDATE}', true),
				('pgqrs_workers', '{SELECT,INSERT,UPDATE,DELETE}', false),
				('pgqrs_messages', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_groups', '{SELECT,UPDATE,DELETE}', false),
				('pgqrs_workflows', '{SELECT,INSERT}', true),
				('pgqrs_workflow_runs', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_workflow_steps', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_workflow_signals', '{SELECT,UPDATE,DELETE}', false),
				('pgqrs_schedules', '{SELECT,INSERT,UPDATE}', true),
				('pgqrs_schedule_runs', '{SELECT,INSERT,DELETE}', true)
		), tables AS (
			SELECT c.oid, c.relname::text AS name, n.rights FROM needed n JOIN pg_class c ON c.oid = to_regclass(n.name)
		)
		SELECT r.privilege || ' on ' || t.name FROM tables t CROSS JOIN unnest(t.rights) AS r (privilege)
		WHERE NOT has_table_privilege(t.oid, r.privilege)
		UNION ALL
		SELECT 'USAGE on sequence ' || c.relname FROM needed n JOIN pg_class c ON c.oid = to_regclass(n.name || '_id_seq')
		WHERE n.sequence AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE') END
		UNION ALL
		SELECT 'USAGE on schema ' || n.nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pgqrs' || '_messages'
		WHERE NOT has_schema_privilege(n.oid, 'USAGE') AND to_regclass('pgqrs_messages') IS NULL
			AND n.nspname = ANY (regexp_split_to_array(replace(current_setting('search_path'), '"', ''), ' *, *'))`},
	versions: `/* pgqrs:schema.versions */ SELECT version, name, oldest FROM pgqrs_migrations ORDER BY version`,
	shared: `/* pgqrs:schema.shared */
		SELECT EXISTS (SELECT 1 FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
			WHERE x.indrelid = to_regclass('pgqrs_messages') AND x.indisvalid AND i.relname = 'pgqrs_messages_consumer')
		WHERE to_regclass('_sqlx_migrations') IS NOT NULL OR EXISTS (SELECT 1 FROM pgqrs_workers WHERE go_state IS NULL)`,
	share: []string{
		`/* pgqrs:schema.share_runs */ CREATE INDEX IF NOT EXISTS pgqrs_workflow_runs_worker ON pgqrs_workflow_runs (worker_id) WHERE worker_id IS NOT NULL`,
		`/* pgqrs:schema.share_consumers */ CREATE INDEX IF NOT EXISTS pgqrs_messages_consumer ON pgqrs_messages (consumer_worker_id) WHERE consumer_worker_id IS NOT NULL`,
	},
	drop: []string{
		`/* pgqrs:schema.drop_tables */ DROP TABLE IF EXISTS pgqrs_groups, pgqrs_schedule_runs, pgqrs_schedules, pgqrs_workflow_signals, pgqrs_workflow_steps, pgqrs_workflow_runs, pgqrs_workflows, pgqrs_messages, pgqrs_workers, pgqrs_queues, pgqrs_migrations`,
		`/* pgqrs:schema.drop_types */
		DO $$
		BEGIN
			IF obj_description(to_regtype('worker_status'), 'pg_type') = 'made by pgqrs' THEN
				BEGIN
					DROP TYPE worker_status;
				EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
				END;
			END IF;
			IF obj_description(to_regtype('pgqrs_workflow_status'), 'pg_type') = 'made by pgqrs' THEN
				BEGIN
					DROP TYPE pgqrs_workflow_status;
				EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
				END;
			END IF;
		END
		$$`,
	},
}
