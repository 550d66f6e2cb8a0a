// Package ahead finds what a blocked message waits for.
package ahead

import (
	"context"

	"github.com/pgqrs/pgqrs-go"
)

const (
	looked = 500  // messages of each state of the queue, for those of a group
	after  = 1000 // ids after that of a message which waits for a batch, which is stored right after it
	Most   = 10   // messages that Of returns
)

// A Wait is what a blocked message waits for.
type Wait struct {
	// Messages are those of its group that are not blocked, or those of its batch that
	// have not ended: the leased ones, then the scheduled, then the ready ones.
	Messages []pgqrs.MessageInfo
	// Cut says that there may be others: more were found than Most, or not all messages were looked at.
	Cut bool
}

// Of says what m waits for. It is empty for a message that is not blocked.
func Of(ctx context.Context, store *pgqrs.Store, m pgqrs.MessageInfo) (Wait, error) {
	switch {
	case m.State != pgqrs.Blocked:
		return Wait{}, nil
	case m.Group != "":
		return group(ctx, store, m)
	}
	return batch(ctx, store, m)
}

var unblocked = []pgqrs.State{pgqrs.Leased, pgqrs.Scheduled, pgqrs.Ready}

// group looks for the unblocked messages of a group among the first of the queue.
func group(ctx context.Context, store *pgqrs.Store, m pgqrs.MessageInfo) (Wait, error) {
	var w Wait
	for _, state := range unblocked {
		list, err := store.Messages(ctx, pgqrs.MessageFilter{Queue: m.Queue, State: state, Limit: looked})
		if err != nil {
			return Wait{}, err
		}
		w.Cut = w.Cut || len(list) == looked
		for _, other := range list {
			if other.Group == m.Group {
				w.add(other)
			}
		}
	}
	return w, nil
}

// batch looks for the messages of a batch among those that were stored after the one that waits for it.
func batch(ctx context.Context, store *pgqrs.Store, m pgqrs.MessageInfo) (Wait, error) {
	ids := make([]int64, after)
	for i := range ids {
		ids[i] = m.ID + 1 + int64(i)
	}
	list, err := store.Messages(ctx, pgqrs.MessageFilter{IDs: ids})
	if err != nil {
		return Wait{}, err
	}
	w := Wait{Cut: len(list) == after}
	for _, state := range append(unblocked, pgqrs.Blocked) {
		for _, other := range list {
			if other.BatchID == m.ID && other.State == state {
				w.add(other)
			}
		}
	}
	return w, nil
}

func (w *Wait) add(m pgqrs.MessageInfo) {
	if len(w.Messages) == Most {
		w.Cut = true
		return
	}
	w.Messages = append(w.Messages, m)
}
