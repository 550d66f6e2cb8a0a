package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
)

// Group puts the message into a group of its queue: 1 to 255 characters, such
// as the number of an account. The messages of a group are worked one at a time, in
// the order in which they were enqueued: that of their transactions' commits.
// The others are [Blocked] meanwhile, and cost consumers nothing. Groups do not wait for each
// other. Policy.GroupConcurrency, GroupRate and SkipFailed say otherwise.
//
// A message that fails holds up its group until it succeeds, is deleted or
// dies; so does one with a delay. Priority counts between groups, not within one. The
// queue's row says what holds: [Queue.Configure] or a Worker writes it.
//
// An enqueue to a group waits for other transactions that are enqueueing to
// it. So one of the application's that does had better be short; where it enqueues
// to several groups, it should take them in the same order everywhere.
func Group(key string) Option {
	return func(o *options) {
		if err := checkName("group", key); err != nil {
			o.fail(err)
		}
		o.group = key
	}
}

// groupHeader tells a consumer a message's group: the claim returns no column for it. Users do not get to see it.
const groupHeader = "pgqrs-group"

// A groupName is a group of a queue.
type groupName struct{ queue, key string }

func compareGroups(a, b groupName) int {
	return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.key, b.key))
}

// groupNames are groups, each once and in the order in which everybody locks them.
func groupNames(names map[groupName]bool) []groupName {
	return slices.SortedFunc(maps.Keys(names), compareGroups)
}

// groupList is a list of groups as the statements take it.
func groupList(groups []groupName) (string, error) {
	list := make([][2]string, len(groups))
	for i, g := range groups {
		list[i] = [2]string{g.queue, g.key}
	}
	return jsonList(list)
}

// groupPolicies say which of several groups' policies is to be reckoned with.
type groupPolicies struct{ many, paced, skips bool }

// lockGroups locks groups, once others have let go of them, and reports whether all their queues exist.
func (c conn) lockGroups(ctx context.Context, groups []groupName) (p groupPolicies, all bool, err error) {
	list, err := groupList(groups)
	if err != nil {
		return p, false, err
	}
	n := 0
	err = c.rows(ctx, c.store.dialect.group.lock, []any{list}, func(rows *sql.Rows) error {
		n++
		return p.add(rows, "many paced skips")
	})
	return p, n == len(groups), err
}

// add scans the policies of one more group, after what else there is in the row. Where they do not
// decode, all is done that a policy could ask for.
func (p *groupPolicies) add(rows *sql.Rows, names string, before ...any) error {
	var more groupPolicies
	malformed, err := scanLoosely(rows, names, append(before, &more.many, &more.paced, &more.skips)...)
	if malformed != "" {
		more = groupPolicies{true, true, true}
	}
	p.many, p.paced, p.skips = p.many || more.many, p.paced || more.paced, p.skips || more.skips
	return err
}

// tryGroups lets go what has room in the groups that nobody else has locked, and returns those.
func (c conn) tryGroups(ctx context.Context, groups []groupName) (locked map[groupName]bool, err error) {
	list, err := groupList(groups)
	if err != nil {
		return nil, err
	}
	var p groupPolicies
	locked = map[groupName]bool{}
	err = c.rows(ctx, c.store.dialect.group.tryLock, []any{list}, func(rows *sql.Rows) error {
		var g groupName
		err := p.add(rows, "queue group many paced skips", &g.queue, &g.key)
		locked[g] = true
		return err
	})
	if err != nil || len(locked) == 0 {
		return nil, err
	}
	return locked, c.promote(ctx, groupNames(locked), p)
}

// promote lets go what has room in groups that the transaction has locked, and wakes who waits for it.
func (c conn) promote(ctx context.Context, groups []groupName, p groupPolicies) error {
	list, err := groupList(groups)
	if err != nil {
		return err
	}
	texts := c.store.dialect.group
	if p.skips {
		ids, err := c.ids(ctx, texts.park, list)
		if err == nil && p.paced && len(ids) > 0 {
			err = c.pace(ctx, texts.refund, ids)
		}
		if err != nil {
			return err
		}
	}
	woken := false
	for more := true; more; more = p.many {
		ids, err := c.ids(ctx, texts.promote, list)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		woken = true
		if p.paced {
			if err := c.pace(ctx, texts.pace, ids); err != nil {
				return err
			}
		}
	}
	if !woken {
		return nil
	}
	queues := map[string]bool{}
	for _, g := range groups {
		queues[g.queue] = true
	}
	return c.store.wakeAll(ctx, queues)
}

// pace runs a statement that counts messages against the rates of their groups.
func (c conn) pace(ctx context.Context, text string, ids []int64) error {
	list, err := jsonList(ids)
	if err == nil {
		_, err = c.exec(ctx, text, list)
	}
	return err
}

// wakeAll wakes who waits for one of the queues.
func (s *Store) wakeAll(ctx context.Context, queues map[string]bool) error {
	for queue := range queues {
		if err := s.wake(ctx, queue); err != nil {
			return err
		}
	}
	return nil
}

// insertGrouped is insert for items of which some are in groups or in a batch, in a transaction.
func (e *enqueuing) insertGrouped(ctx context.Context, c conn) error {
	names := map[groupName]bool{}
	list := make([][]any, len(e.left))
	for i, n := range e.left {
		it := e.items[n]
		list[i] = []any{it.payload, it.delay, it.at, it.priority, it.key, it.headers, it.group, it.batch}
		if it.group != nil {
			names[groupName{e.queue, it.group.(string)}] = true
		}
	}
	arg, err := jsonList(list)
	if err != nil {
		return err
	}
	groups := groupNames(names)
	var p groupPolicies
	if len(groups) > 0 {
		var there bool
		if p, there, err = c.lockGroups(ctx, groups); err != nil || !there {
			return err
		}
	}
	if err := e.insertList(ctx, c, c.store.dialect.group.enqueue, arg); err != nil || len(groups) == 0 {
		return err
	}
	return c.promote(ctx, groups, p)
}
