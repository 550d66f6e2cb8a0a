package races_test

import (
	"errors"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

func TestRedriveAgainstEnqueueOfItsKey(t *testing.T) {
	for name, opts := range map[string][]pgqrs.Option{"a message": {pgqrs.Key("k")}, "one of a group": {pgqrs.Key("k"), inGroup}} {
		for _, end := range []string{"commits", "is rolled back"} {
			onPostgres(t, name+" whose key is taken in an open transaction that "+end, func(s *scene) {
				dead := s.enqueue(s.b, opts...)
				s.kill(dead)
				other := s.enqueue(s.b)
				s.kill(other)
				tx := s.begin(s.b)
				value(s.b.jobs().WithTx(tx).Enqueue(s.Context(), 1, pgqrs.Key("k")))(s)
				var n int64
				done := async(func() (err error) { n, err = s.a.store.Redrive(s.Context(), dead, other); return err })
				s.wantWait(s.a, done)
				if end == "commits" {
					s.must(tx.Commit())
					if err := receive(s, "Redrive returns", done); !errors.Is(err, pgqrs.ErrDuplicate) {
						s.Errorf("the error is %v", err)
					}
					equal(s, "redriven", int(n), 1)
					s.wantStates([]int64{dead, other}, pgqrs.Dead, pgqrs.Ready)
					return
				}
				s.must(tx.Rollback())
				s.must(receive(s, "Redrive returns", done))
				equal(s, "redriven", int(n), 2)
				s.wantStates([]int64{dead, other}, pgqrs.Ready, pgqrs.Ready)
			})
		}
	}
}
