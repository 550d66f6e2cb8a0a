package main

import (
	"context"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A snapshot is what queues and workers look like at one time.
type snapshot struct {
	at      time.Time
	queues  []pgqrs.QueueInfo
	workers []pgqrs.WorkerInfo
}

func takeSnapshot(ctx context.Context, store *pgqrs.Store) (snapshot, error) {
	queues, err := store.Queues(ctx)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{at: time.Now(), queues: queues}
	all, err := store.Workers(ctx)
	for _, w := range all {
		if w.Status != "stopped" {
			s.workers = append(s.workers, w)
		}
	}
	return s, err
}

// A pace is a queue with how fast it moves, in messages a second.
type pace struct {
	pgqrs.QueueInfo
	workers        int64
	in, done, died float64
}

// paces compares a snapshot with one before it. What was deleted in between is missing from the rates.
func (s snapshot) paces(before snapshot) []pace {
	old := map[int64]pgqrs.QueueInfo{}
	for _, q := range before.queues {
		old[q.ID] = q
	}
	workers := map[string]int64{}
	for _, w := range s.workers {
		workers[w.Queue]++
	}
	took := s.at.Sub(before.at).Seconds()
	rate := func(now, then int64) float64 {
		if took <= 0 || now < then {
			return 0
		}
		return float64(now-then) / took
	}
	list := make([]pace, len(s.queues))
	for i, q := range s.queues {
		list[i] = pace{QueueInfo: q, workers: workers[q.Name]}
		if then, ok := old[q.ID]; ok {
			list[i].in, list[i].done, list[i].died = rate(total(q), total(then)), rate(q.Archived, then.Archived), rate(q.Dead, then.Dead)
		}
	}
	return list
}

// total is how many messages a queue has, in whatever state.
func total(q pgqrs.QueueInfo) int64 { return q.Ready + q.Scheduled + q.Leased + q.Archived + q.Dead }

// sum is all queues as if they were one.
func sum(list []pace) pace {
	all := pace{QueueInfo: pgqrs.QueueInfo{Name: "TOTAL"}}
	for _, p := range list {
		all.Ready += p.Ready
		all.Scheduled += p.Scheduled
		all.Leased += p.Leased
		all.Archived += p.Archived
		all.Dead += p.Dead
		all.OldestReady = max(all.OldestReady, p.OldestReady)
		all.workers += p.workers
		all.in += p.in
		all.done += p.done
		all.died += p.died
	}
	return all
}
