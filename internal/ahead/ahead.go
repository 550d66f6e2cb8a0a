// Package ahead finds what a blocked message waits for.
package ahead

import (
	"context"

	"github.com/pgqrs/pgqrs-go"
)

// Most is how many messages Of returns.
const Most = 10

// A Wait is what a blocked message waits for.
type Wait struct {
	// Messages are those of its group that are not blocked, or those of its batch that have not
	// ended: the leased ones, then the scheduled, then the ready ones. Their payloads may be cut.
	Messages []pgqrs.MessageInfo
	// Cut says that there are others.
	Cut bool
}

// Of says what m waits for. It is empty for a message that is not blocked.
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
