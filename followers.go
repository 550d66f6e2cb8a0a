package pgqrs

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"unicode/utf8"
)

// A follower is what may go on once a message has ended: the next one of its
// group, or the one that waits for its batch.
type follower struct {
	groupName       // zero: a batch
	batch     int64 // id of the message that waits; 0: a group
}

type followers map[follower]bool

// after adds what may follow a message. A malformed group, which no statement can name, is none.
func (f followers) after(queue, group string, batch int64) {
	if group != "" && utf8.ValidString(group) {
		f[follower{groupName: groupName{queue, group}}] = true
	}
	if batch != 0 {
		f[follower{batch: batch}] = true
	}
}

// split returns the groups and the batches, each in the order in which they are locked.
func (f followers) split() (groups []groupName, batches []int64) {
	for x := range f {
		if x.batch != 0 {
			batches = append(batches, x.batch)
		} else {
			groups = append(groups, x.groupName)
		}
	}
	slices.SortFunc(groups, compareGroups)
	slices.Sort(batches)
	return groups, batches
}

// followersOf returns what may follow messages that are settled: whatever ends one, or puts it off.
func followersOf(list []settlement) followers {
	f := followers{}
	for _, x := range list {
		switch {
		case x.kind == acked || x.kind == died:
			f.after(x.m.Queue, x.m.Group, x.m.BatchID)
		case x.kind == retried || x.delay > 0:
			f.after(x.m.Queue, x.m.Group, 0)
		}
	}
	return f
}

// followersHaving returns what may follow messages by id, and the parents that may wait for their runs.
func (c conn) followersHaving(ctx context.Context, ids string) (f followers, parents []int64, err error) {
	f = followers{}
	found := map[int64]bool{}
	err = c.rows(ctx, c.store.dialect.group.of, []any{ids}, func(rows *sql.Rows) error {
		var queue string
		var group sql.NullString
		var batch, parent sql.NullInt64
		_, err := scanRowLoosely(rows, "queue group_key batch_id parent", &queue, &group, &batch, &parent) // what does not decode is followed by nothing
		f.after(queue, group.String, batch.Int64)
		if parent.Valid {
			found[parent.Int64] = true
		}
		return err
	})
	return f, slices.Sorted(maps.Keys(found)), err
}

// advance lets go what may follow, now that something has ended. Nobody is waited for: what
// another has locked is looked at again a little later.
func (c conn) advance(ctx context.Context, f followers) error {
	if len(f) == 0 {
		return nil
	}
	missed, err := c.follow(ctx, f)
	if err == nil && len(missed) > 0 {
		c.store.tell(func() { c.store.revisit(missed, c.store.tx != nil && c.store.news == nil) })
	}
	return err
}

// follow lets go what may follow and nobody else has locked, and returns the rest.
func (c conn) follow(ctx context.Context, f followers) (missed followers, err error) {
	groups, batches := f.split()
	missed = maps.Clone(f)
	if len(groups) > 0 {
		locked, err := c.tryGroups(ctx, groups)
		if err != nil {
			return nil, err
		}
		for g := range locked {
			delete(missed, follower{groupName: g})
		}
	}
	if len(batches) > 0 {
		locked, err := c.tryBatches(ctx, batches)
		if err != nil {
			return nil, err
		}
		for _, id := range locked {
			delete(missed, follower{batch: id})
		}
	}
	return missed, nil
}
