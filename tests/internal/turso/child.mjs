// The far end of package turso. It reads requests from stdin and writes
// responses to stdout, one JSON object a line, in any order. It ends with stdin.
//
// All connections live in this one thread. A statement runs in one go, unless
// the engine waits, for a lock or for the disk: then the others go on.
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Database } from '@tursodatabase/database';

const ROW = 1, DONE = 2; // what a step returns; anything else means that the engine waits
const PATIENCE = 200; // steps for which a statement may wait without letting others go on

const STATEMENTS = 200; // that a connection keeps for later requests

const conns = new Map(); // by the number that the request gave them

// Values travel as JSON null and string, and as {i: integer}, {f: real} and {b: blob}, their contents as text.
const decode = v => v === null || typeof v === 'string' ? v
	: 'i' in v ? BigInt(v.i) : 'f' in v ? Number(v.f) : Buffer.from(v.b, 'base64');
const encode = v => typeof v === 'bigint' ? { i: String(v) } : typeof v === 'number' ? { f: String(v) }
	: v instanceof Uint8Array ? { b: Buffer.from(v).toString('base64') } : v;

// keepReals makes the text cast its arguments that are whole reals: the engine's binding makes integers of them.
function keepReals(sql, args) {
	if (!args.some(v => v?.f)) return sql;
	let n = 0;
	return sql.replace(/'[^']*'|"[^"]*"|--[^\n]*|\/\*[^]*?\*\/|\?(\d*)/g, (found, number) => {
		if (number === undefined) return found;
		const i = number === '' ? n++ : number - 1;
		return Number.isInteger(Number(args[i]?.f)) ? `CAST(${found} AS REAL)` : found;
	});
}

// prepare returns a statement for the text: one that an earlier request of the connection has left, or
// a new one. The engine compiles a statement again if the schema has changed since.
function prepare(conn, text) {
	const kept = conn.statements.get(text);
	conn.statements.delete(text); // another request may run the same text meanwhile
	return kept ?? conn.db.prepare(text);
}

// keep leaves a statement to later requests.
function keep(conn, text, st) {
	if (conn.statements.has(text) || conn.statements.size === STATEMENTS) st.finalize();
	else conn.statements.set(text, st);
}

function open({ path, options }) {
	const db = new Database(path, options).db; // the native one: only it can be stepped
	db.connectSync();
	db.defaultSafeIntegers(true);
	return { db, cancelled: 0, statements: new Map() };
}

async function run(conn, { id, sql, args, query }) {
	const { db } = conn;
	const prepared = query || args.length > 0; // an executor takes several statements
	const text = keepReals(sql, args);
	const st = prepared ? prepare(conn, text) : db.executor(sql);
	try {
		const columns = query ? st.columns() : [];
		const wanted = st.parameterCount?.() ?? 0;
		if (wanted !== args.length) throw new Error(`got ${args.length} arguments, want ${wanted}`);
		args.forEach((v, i) => st.bindAt(i + 1, decode(v)));
		st.raw?.(true);
		const rows = [], before = db.totalChanges();
		for (let waits = 0; ;) {
			const step = st.stepSync();
			if (step === DONE) break;
			if (step === ROW) {
				if (query) rows.push(st.row().map(encode));
				continue;
			}
			db.ioLoopSync();
			if (++waits > PATIENCE) {
				await sleep(1);
				if (conn.cancelled === id) throw new Error('statement was interrupted');
			}
		}
		return { columns, rows, changes: db.totalChanges() === before ? 0 : db.changes(), last: String(db.lastInsertRowid()) };
	} finally {
		st.reset();
		if (prepared) keep(conn, text, st);
	}
}

async function close(conn) {
	if (conn.db.inTransaction()) await run(conn, { sql: 'ROLLBACK', args: [] });
	conn.statements.forEach(st => st.finalize());
	conn.db.close();
}

const operations = {
	open: request => void conns.set(request.conn, open(request)),
	run: request => run(conns.get(request.conn), request),
	cancel: request => void (conns.get(request.conn).cancelled = request.target),
	close: request => {
		const conn = conns.get(request.conn);
		conns.delete(request.conn);
		return close(conn);
	},
};

async function handle(request) {
	const response = { id: request.id };
	try {
		Object.assign(response, await operations[request.op](request));
	} catch (e) {
		response.error = String(e.message);
	}
	response.tx = conns.get(request.conn)?.db.inTransaction() ?? false;
	process.stdout.write(JSON.stringify(response) + '\n');
}

createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', line => handle(JSON.parse(line)));
