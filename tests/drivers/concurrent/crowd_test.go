package concurrent_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
)

func TestEightConsumersGetEachOf20000MessagesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	db, dialect := open(t)
	stores := make([]*pgqrs.Store, 8)
	for i := range stores {
		stores[i] = pgqrs.Config{Concurrent: true}.New(db, dialect)
	}
	if err := stores[0].Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	conformance.ExactlyOnce(t, stores, 20_000)
}
