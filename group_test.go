//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAGroupIsLookedAtAgainSoonThoughAnotherHasBeenLockedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const held, fresh = "held", "fresh"
		f, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
			if c.tag() == "group.try_lock" && strings.Contains(c.args[0].Value.(string), fresh) {
				return row("q", fresh, false, false, false), nil
			}
			return nil, nil
		})
		looks := func(group string) (times []time.Time) {
			for _, c := range f.log() {
				if c.tag() == "group.try_lock" && strings.Contains(c.args[0].Value.(string), group) {
					times = append(times, c.at)
				}
			}
			return times
		}
		begin := time.Now()
		s.retryUnblock(dependents{{groupID: groupID{"q", held}}: true}, false)
		pass(10 * time.Second)
		if got := looks(held); len(got) < 10 || len(got) > 14 || got[0].Sub(begin) != firstUnblockWait {
			t.Errorf("a group that stays locked was looked at %d times in ten seconds, at %v", len(got), got)
		}
		pass(10 * time.Millisecond)
		begin = time.Now()
		s.retryUnblock(dependents{{groupID: groupID{"q", fresh}}: true}, false)
		pass(10 * time.Second)
		if got := looks(fresh); len(got) != 1 || got[0].Sub(begin) != firstUnblockWait {
			t.Errorf("another was looked at at %v; want once, %v after %v", got, firstUnblockWait, begin)
		}
		pass(time.Minute)
		f.log()
		pass(time.Minute)
		if got := f.log(); len(got) > 0 {
			t.Errorf("it goes on looking: %v", got)
		}
		if err := errors.Join(s.Close(), s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestBatchesAreSweptThoughGroupsCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := new(idleDatabase)
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
			if c.tag() == "group.sweep" {
				return nil, errBroken
			}
			return idle.answer(c)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- (&Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}}).Run(ctx) }()
		pass(time.Minute)
		swept := false
		for _, c := range f.log() {
			swept = swept || c.tag() == "batch.sweep"
		}
		if !swept {
			t.Error("no batch was swept")
		}
		cancel()
		if err := errors.Join(<-done, s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}

// Groups and batches are locked in the same order everywhere. Otherwise two transactions that lock
// several of them could deadlock.
func TestGroupsAndBatchesAreLockedInOneOrder(t *testing.T) {
	names, f := map[groupID]bool{}, dependents{}
	for i := range 50 {
		g := groupID{fmt.Sprint("q", i%3), fmt.Sprint("g", i)}
		names[g] = true
		f.add(g.queue, g.key, int64(i+1))
	}
	groups, batches := f.split()
	for _, list := range [][]groupID{groupNames(names), groups} {
		if len(list) != 50 || !slices.IsSortedFunc(list, compareGroups) {
			t.Errorf("the groups are in the order %v", list)
		}
	}
	if len(batches) != 50 || !slices.IsSorted(batches) {
		t.Errorf("the batches are in the order %v", batches)
	}
	if list, err := groupList([]groupID{{"q", "b"}, {"q", "a"}}); err != nil || list != `[["q","b"],["q","a"]]` {
		t.Errorf("a list of groups is %s, %v", list, err)
	}
}

// Rows may name any number of groups that are not there. The sweep finds those that are.
func TestDependentsToTryAgainAreBounded(t *testing.T) {
	s := &core{}
	s.unblockRetries.closed = true // so that nothing is tried
	for i := range 2 * maxUnblockDue {
		s.retryUnblock(dependents{{batch: int64(i + 1)}: true}, false)
	}
	s.unblockRetries.mu.Lock()
	defer s.unblockRetries.mu.Unlock()
	if n := len(s.unblockRetries.due); n != maxUnblockDue {
		t.Errorf("%d dependents are kept, want %d", n, maxUnblockDue)
	}
}
