package pgqrs

import (
	"context"
	"fmt"
	"slices"
)

// Redrive makes dead or archived messages ready again, with all their
// attempts before them, and returns how many. Messages whose key has been
// taken since are left, and named in an error matching ErrDuplicate; ids that
// are neither dead nor archived are left alone. No ids redrive nothing.
func (s *Store) Redrive(ctx context.Context, ids ...int64) (int64, error) {
	err := s.usable()
	var done, taken []int64
	for chunk := range slices.Chunk(ids, adminChunk) {
		if err == nil {
			var more, left []int64
			more, left, err = s.redrive(ctx, chunk)
			done, taken = append(done, more...), append(taken, left...)
		}
	}
	if err == nil {
		err = takenError(taken)
	}
	return int64(len(done)), wrap(ctx, err, "redrive messages")
}

// RedriveAll redrives all dead letters of a queue; see Redrive.
func (s *Store) RedriveAll(ctx context.Context, queue string) (int64, error) {
	var n int64
	var taken []int64
	err := s.eachPage(ctx, queue, Dead, func(ids []int64) error {
		done, left, err := s.redrive(ctx, ids)
		n += int64(len(done))
		taken = append(taken, left...)
		return err
	})
	if err == nil {
		err = takenError(taken)
	}
	return n, wrap(ctx, err, "redrive the dead letters of queue %q", queue)
}

func takenError(ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("%w: left as they are: messages %v", ErrDuplicate, ids)
}

// redriving calls fn, which redrives, and calls it again if a key was taken meanwhile, by a
// transaction that it did not see. A caller's transaction is at its end by that.
func (s *Store) redriving(fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		switch {
		case sqlState(err) != "23505": // unique_violation
			return err
		case s.tx != nil || try == maxEnqueueTries:
			return fmt.Errorf("%w (%w)", ErrDuplicate, err)
		}
	}
}

// redrive returns which messages it redrove and which it left because of their key.
func (s *Store) redrive(ctx context.Context, ids []int64) (done, taken []int64, err error) {
	list, err := jsonList(ids)
	if err != nil {
		return nil, nil, err
	}
	err = s.redriving(func() error {
		return s.single(ctx, func(c conn) (err error) {
			done, err = c.ids(ctx, s.dialect.message.redrive, list)
			return err
		})
	})
	if err != nil || len(done) == len(ids) {
		return done, nil, err
	}
	left, err := s.messages(ctx, MessageFilter{IDs: ids})
	if err != nil {
		return done, nil, err
	}
	more, err := s.redriveGrouped(ctx, left)
	done = append(done, more...)
	for _, m := range left {
		if (m.State == Dead || m.State == Archived) && !slices.Contains(done, m.ID) {
			taken = append(taken, m.ID)
		}
	}
	return done, taken, err
}

// redriveGrouped is redrive for those of the messages that are in groups.
func (s *Store) redriveGrouped(ctx context.Context, ms []MessageInfo) (done []int64, err error) {
	names := map[groupName]bool{}
	var ids []int64
	for _, m := range ms {
		if m.Group != "" && (m.State == Dead || m.State == Archived) {
			names[groupName{m.Queue, m.Group}] = true
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := jsonList(ids)
	if err != nil {
		return nil, err
	}
	groups := groupNames(names)
	err = s.redriving(func() error {
		return s.atomic(ctx, func(c conn) error {
			p, _, err := c.lockGroups(ctx, groups) // first, as an enqueue does
			if err != nil {
				return err
			}
			if done, err = c.ids(ctx, s.dialect.group.redrive, list); err != nil {
				return err
			}
			return c.promote(ctx, groups, p)
		})
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}
