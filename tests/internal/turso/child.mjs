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

function open({ path, options }) {
	const db = new Database(path, options).db; // the native one: only it can be stepped
	db.connectSync();
	db.defaultSafeIntegers(true);
	return { db, cancelled: 0 };
}

async function run(conn, { id, sql, args, query }) {
	const { db } = conn;
	const st = query || args.length ? db.prepare(keepReals(sql, args)) : db.executor(sql); // an executor takes several statements
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
		st.finalize?.();
	}
}

async function close(conn) {
	if (conn.db.inTransaction()) await run(conn, { sql: 'ROLLBACK', args: [] });
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
