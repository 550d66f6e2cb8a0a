// Package ahead finds the messages that a blocked message waits for.
package ahead

import (
	"context"

	"github.com/pgqrs/pgqrs-go"
)

// Most is how many messages Of returns.
const Most = 10

// A Wait describes what a blocked message waits for.
type Wait struct {
	// Messages are messages of its group that are not blocked, or messages of its batch that have
	// not ended. Leased messages come first, then scheduled and then ready ones. Payloads may be
	// cut.
	Messages []pgqrs.MessageInfo
	// Cut is true if there are more messages.
	Cut bool
}

// For a blocked message m, Of returns what m waits for. For any other message the Wait is empty.
func Of(ctx context.Context, store *pgqrs.Store, m pgqrs.MessageInfo) (Wait, error) {
	if m.State != pgqrs.Blocked {
		return Wait{}, nil
	}
	list, err := store.Ahead(ctx, m.ID, Most+1)
	if err != nil {
		return Wait{}, err
	}
	return Wait{list[:min(len(list), Most)], len(list) > Most}, nil
}
