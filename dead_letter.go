package pgqrs

import (
	"context"
	"maps"
	"slices"
)

// bequeath makes dead letters of messages and gives copies of them to the
// queues that their policies name, in one transaction. It returns the ids that were done.
func (s *Store) bequeath(ctx context.Context, dead []settlement) ([]int64, error) {
	var done []int64
	err := s.atomic(ctx, func(c conn) (err error) {
		var leases leaseList
		heirs := map[int64]string{}
		for _, x := range dead {
			leases.add(x.m, nil, errorText(x.err))
			heirs[x.m.ID] = x.deadLetter
		}
		if done, err = c.lease(ctx, s.dialect.lease.fail, leases); err != nil {
			return err
		}
		parts := map[string][]int64{}
		for _, id := range done {
			parts[heirs[id]] = append(parts[heirs[id]], id)
		}
		for _, queue := range slices.Sorted(maps.Keys(parts)) {
			if err := c.copyDead(ctx, queue, parts[queue]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// copyDead copies dead messages to a queue, which it makes if need be.
func (c conn) copyDead(ctx context.Context, queue string, ids []int64) error {
	list, err := jsonList(ids)
	if err != nil {
		return err
	}
	if _, err := c.exec(ctx, c.store.dialect.queue.make, queue); err != nil {
		return err
	}
	copies, err := c.ids(ctx, c.store.dialect.policy.deadLetter, queue, list)
	if err != nil {
		return err
	}
	return c.store.announce(ctx, queue, copies)
}
