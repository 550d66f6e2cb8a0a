package main

import (
	"context"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A snapshot is the state of queues and workers at one time.
type snapshot struct {
	at      time.Time
	queues  []pgqrs.QueueDepth
	workers []pgqrs.WorkerInfo
}

// takeSnapshot takes a snapshot. Its cost does not grow with the history.
func takeSnapshot(ctx context.Context, store *pgqrs.Store) (snapshot, error) {
	queues, err := store.Depths(ctx)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{at: time.Now(), queues: queues}
	all, err := store.Workers(ctx)
	for _, w := range all {
		if w.State != pgqrs.WorkerStopped {
			s.workers = append(s.workers, w)
		}
	}
	return s, err
}

// A pace is a queue with its speed.
type pace struct {
	pgqrs.QueueDepth
	growth float64 // of its unfinished messages, in messages a second
	known  bool    // whether growth is known
}

// paces compares a snapshot with an earlier one.
func (s snapshot) paces(before snapshot) []pace {
	old := map[string]pgqrs.QueueDepth{}
	for _, q := range before.queues {
		old[q.Name] = q
	}
	took := s.at.Sub(before.at).Seconds()
	list := make([]pace, len(s.queues))
	for i, q := range s.queues {
		list[i] = pace{QueueDepth: q}
		if then, ok := old[q.Name]; ok && took > 0 && counted(q) && counted(then) {
			list[i].growth, list[i].known = float64(unfinished(q)-unfinished(then))/took, true
		}
	}
	return list
}

// total is the name of all queues together.
const total = "TOTAL"

func unfinished(q pgqrs.QueueDepth) int64 { return q.Ready + q.Scheduled + q.Blocked + q.Leased }

// counted reports whether all unfinished messages were counted.
func counted(q pgqrs.QueueDepth) bool {
	return max(q.Ready, q.Scheduled, q.Blocked, q.Leased) < pgqrs.DepthLimit
}

// sum adds all queues up to one.
func sum(list []pace) pace {
	all := pace{QueueDepth: pgqrs.QueueDepth{Name: total}, known: true}
	for _, p := range list {
		all.Ready += p.Ready
		all.Scheduled += p.Scheduled
		all.Blocked += p.Blocked
		all.Leased += p.Leased
		all.ArchivedLastMinute += p.ArchivedLastMinute
		all.Dead += p.Dead
		all.DiedLastMinute += p.DiedLastMinute
		all.OldestReady = max(all.OldestReady, p.OldestReady)
		all.Workers += p.Workers
		all.growth += p.growth
		all.known = all.known && p.known
	}
	return all
}
