package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// verify reads the settings that a database's speed depends on, with each measured driver. It
// returns an error if commits are not durable.
func (e *engine) verify(ctx context.Context) ([]string, error) {
	if e.postgres() {
		return e.verifyPostgres(ctx)
	}
	var all []string
	for _, s := range []struct{ name, number string }{{"NORMAL", "1"}, {"FULL", "2"}} {
		db, err := e.withSynchronous(s.name).fresh(ctx, 1)
		if err != nil {
			return nil, err
		}
		facts, err := db.ask(ctx, []question{
			{"SQLite", "SELECT sqlite_version()", ""},
			{"journal_mode", "PRAGMA journal_mode", "wal"},
			{"synchronous", "PRAGMA synchronous", s.number},
		})
		if err != nil {
			return nil, err
		}
		if err := db.drop(); err != nil {
			return nil, err
		}
		all = append(all, "ncruces, "+s.name+": "+facts)
	}
	return append(all, fmt.Sprintf("pool of %d connections for the library", sqliteConns)), nil
}

func (e *engine) verifyPostgres(ctx context.Context) ([]string, error) {
	questions := []question{{"PostgreSQL", "SHOW server_version", ""}}
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		questions = append(questions, question{name, "SHOW " + name, "on"})
	}
	for _, name := range []string{"wal_sync_method", "shared_buffers", "max_wal_size", "checkpoint_timeout", "autovacuum", "autovacuum_naptime", "jit", "max_connections"} {
		questions = append(questions, question{name, "SHOW " + name, ""})
	}
	db, err := e.fresh(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	facts, err := db.ask(ctx, questions)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, db.dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var peers string
	if err := conn.QueryRow(ctx, "SHOW synchronous_commit").Scan(&peers); err != nil {
		return nil, err
	}
	if peers != "on" {
		return nil, fmt.Errorf("synchronous_commit is %s for pgx", peers)
	}
	return []string{
		"lib/pq: " + facts,
		"pgx: synchronous_commit=" + peers,
		fmt.Sprintf("pools of %d connections for the library and for River", postgresConns),
	}, nil
}

// A question is a setting, the query for it, and the required value, if there is one.
type question struct{ name, query, want string }

// ask returns the answers as text.
func (d *database) ask(ctx context.Context, questions []question) (string, error) {
	var facts []string
	for _, q := range questions {
		var answer string
		if err := d.QueryRowContext(ctx, q.query).Scan(&answer); err != nil {
			return "", fmt.Errorf("%s: %w", q.query, err)
		}
		if q.want != "" && answer != q.want {
			return "", fmt.Errorf("%s is %s, want %s: what is measured would not be durable", q.name, answer, q.want)
		}
		facts = append(facts, q.name+"="+answer)
	}
	return strings.Join(facts, ", "), nil
}
