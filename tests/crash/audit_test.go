//go:build unix

package crash_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A facts has the final contents of the database and of the ledgers.
type facts struct {
	messages map[int64]pgqrs.MessageInfo
	runs     map[int64]pgqrs.RunInfo
	effects  map[happening]int // how often each is there
	orders   map[string]int    // how often each token is there
	ledger   []entry
}

// A happening is an effect of a message or run.
type happening struct {
	kind string
	id   int64
}

// An audit lists the errors in the facts, in sentences.
type audit struct {
	lost, doubled []string
	broken        []string // overlapping leases, and other broken promises
}

func (a *audit) lose(format string, args ...any) {
	a.lost = append(a.lost, fmt.Sprintf(format, args...))
}
func (a *audit) double(format string, args ...any) {
	a.doubled = append(a.doubled, fmt.Sprintf(format, args...))
}
func (a *audit) breach(format string, args ...any) {
	a.broken = append(a.broken, fmt.Sprintf(format, args...))
}

func (f *facts) audit() audit {
	var a audit
	f.auditMessages(&a)
	f.auditRuns(&a)
	f.auditEffects(&a)
	f.auditAcks(&a)
	f.auditLeases(&a)
	return a
}

// print fails the test with the errors.
func (a audit) print(t *testing.T) {
	t.Helper()
	for _, kind := range []struct {
		name string
		list []string
	}{{"lost", a.lost}, {"doubled", a.doubled}, {"broken", a.broken}} {
		for i, text := range kind.list {
			if i == 10 {
				t.Errorf("%s: %d more", kind.name, len(kind.list)-i)
				break
			}
			t.Errorf("%s: %s", kind.name, text)
		}
	}
}

// auditMessages checks that every acknowledged message is in the database. Each message must have
// reached its end once, together with the row of its transaction.
func (f *facts) auditMessages(a *audit) {
	tokens := map[string]int64{}
	for _, id := range slices.Sorted(maps.Keys(f.messages)) {
		m := f.messages[id]
		if m.State != pgqrs.Archived {
			a.lose("message %d on %q never reached its end: it is %s", id, m.Queue, m.State)
		}
		if m.Queue == order {
			continue
		}
		var payload task
		if err := json.Unmarshal(m.Raw, &payload); err != nil {
			a.lose("message %d: payload %s: %v", id, m.Raw, err)
			continue
		}
		if first, ok := tokens[payload.Token]; ok {
			a.double("%s was enqueued once and is stored as messages %d and %d", payload.Token, first, id)
		} else {
			tokens[payload.Token] = id
		}
		if payload.Ordered && f.orders[payload.Token] == 0 {
			a.breach("message %d is there, and the row of its transaction is not", id)
		}
	}
	for token, times := range f.orders {
		if tokens[token] == 0 {
			a.lose("the order %s is there, and its message is not", token)
		}
		if times > 1 {
			a.double("the order %s is there %d times", token, times)
		}
	}
	for _, e := range f.ledger {
		if e.Event == enqueued && tokens[e.Token] != e.ID {
			a.lose("%s was told that %s is message %d; there it is message %d (0: nowhere)", e.Process, e.Token, e.ID, tokens[e.Token])
		}
	}
}

// auditRuns checks that every acknowledged run is in the database, once for each key, with the
// right output.
func (f *facts) auditRuns(a *audit) {
	keys := map[string]int64{}
	for _, id := range slices.Sorted(maps.Keys(f.runs)) {
		r := f.runs[id]
		if first, ok := keys[r.Key]; ok {
			a.double("%s was started as runs %d and %d", r.Key, first, id)
		} else {
			keys[r.Key] = id
		}
		var payload struct{ Input amount }
		var got receipt
		if err := json.Unmarshal(r.Input, &payload); err != nil {
			a.lose("run %d: input %s: %v", id, r.Input, err)
			continue
		}
		if r.Status != pgqrs.Succeeded {
			a.lose("run %d did not succeed: it is %s %s", id, r.Status, r.Error)
			continue
		}
		if r.Key != keyOf(payload.Input.N) {
			a.breach("run %d of %+v has the key %q: its message was stored, and then not all of the run", id, payload.Input, r.Key)
		}
		want := receipt{payload.Input.price(), payload.Input.reserved()}
		if err := json.Unmarshal(r.Output, &got); err != nil || got != want {
			a.breach("run %d of %+v returned %s, want %+v", id, payload.Input, r.Output, want)
		}
	}
	for _, e := range f.ledger {
		if e.Event == started && keys[e.Token] != e.ID {
			a.lose("%s was told that %s is run %d; there it is run %d (0: nowhere)", e.Process, e.Token, e.ID, keys[e.Token])
		}
	}
}

// auditEffects checks that an effect is there once if the message or run that it belongs to has
// ended, and not at all otherwise.
func (f *facts) auditEffects(a *audit) {
	for h, times := range f.effects {
		if times > 1 {
			a.double("the effect %q of %d is there %d times", h.kind, h.id, times)
		}
		_, message := f.messages[h.id]
		_, run := f.runs[h.id]
		if ofRun := h.kind == reserveEffect || h.kind == bookEffect; ofRun && !run || !ofRun && !message {
			a.breach("there is the effect %q of %d, which does not exist", h.kind, h.id)
		}
	}
	need := func(kind string, id int64) {
		if f.effects[happening{kind, id}] == 0 {
			a.lose("the effect %q of %d, which has ended, is not there", kind, id)
		}
	}
	for id, m := range f.messages {
		if m.Queue == booked && m.State == pgqrs.Archived {
			need(bookedEffect, id)
		}
	}
	for id, r := range f.runs {
		if r.Status == pgqrs.Succeeded {
			need(reserveEffect, id)
			need(bookEffect, id)
		}
	}
}

// auditAcks checks that no ack succeeded for two deliveries of a message, and that no delivery came
// after an ack.
func (f *facts) auditAcks(a *audit) {
	by := map[int64]int64{} // message to the claim that acked it
	for _, e := range f.ledger {
		if e.Event != acked {
			continue
		}
		if first, ok := by[e.ID]; ok && first != e.Claim {
			a.double("message %d was acked for its claims %d and %d", e.ID, first, e.Claim)
		}
		by[e.ID] = max(by[e.ID], e.Claim)
	}
	for _, e := range f.ledger {
		if claim, ok := by[e.ID]; ok && e.Event == claimed && e.Claim > claim {
			a.double("message %d was acked for its claim %d, and delivered again as claim %d", e.ID, claim, e.Claim)
		}
	}
}

// A holding is the time in which a delivery's lease is known to have lasted. It uses the database's
// clock, which is also this host's clock.
type holding struct {
	entry                 // with the event claimed
	from, until time.Time // until includes extensions, and ends when the holder was about to settle
	settling    time.Time // or zero
}

// coarse is more than the rounding of timestamps.
const coarse = 5 * time.Millisecond

// auditLeases checks that no two deliveries held a message at the same time.
//
// The beginning of a lease is known exactly, because its end minus its length is known. Its end is
// not before the time that the delivery or Extend returned, or the time at which the holder was
// about to settle, whichever is earlier. Renewals by a Worker are not known here, and are not
// needed.
func (f *facts) auditLeases(a *audit) {
	for id, list := range f.holdings(a) {
		slices.SortFunc(list, func(x, y *holding) int { return cmp.Compare(x.Claim, y.Claim) })
		for i := 1; i < len(list); i++ {
			former, latter := list[i-1], list[i]
			if latter.from.Before(former.until.Add(-coarse)) {
				a.breach("message %d was held by %s (claim %d) until %v and by %s (claim %d) from %v on", id,
					former.Process, former.Claim, former.until, latter.Process, latter.Claim, latter.from)
			}
			if released := latter.Queue == byHand || latter.Queue == order; !released && latter.Attempt <= former.Attempt {
				a.breach("message %d had attempt %d as claim %d, and attempt %d as claim %d", id,
					former.Attempt, former.Claim, latter.Attempt, latter.Claim)
			}
		}
	}
}

// holdings returns the deliveries of each message that are in the ledgers.
func (f *facts) holdings(a *audit) map[int64][]*holding {
	type delivery struct{ id, claim int64 }
	byDelivery, all := map[delivery]*holding{}, map[int64][]*holding{}
	for _, e := range f.ledger {
		if e.Event != claimed {
			continue
		}
		key := delivery{e.ID, e.Claim}
		if first := byDelivery[key]; first != nil {
			a.breach("message %d was delivered as claim %d to %s and to %s", e.ID, e.Claim, first.Process, e.Process)
			continue
		}
		h := &holding{entry: e, from: e.Until.Add(-lease), until: e.Until}
		byDelivery[key] = h
		all[e.ID] = append(all[e.ID], h)
	}
	for _, e := range f.ledger {
		h := byDelivery[delivery{e.ID, e.Claim}]
		switch {
		case e.Event == extended && e.Until.After(h.until):
			h.until = e.Until
		case e.Event == ended:
			h.settling = e.At
		}
	}
	for _, h := range byDelivery {
		if !h.settling.IsZero() && h.settling.Before(h.until) {
			h.until = h.settling
		}
	}
	return all
}

// missing names the events that did not happen but that a meaningful audit needs.
func (f *facts) missing() []string {
	happened := map[string]int{"order": len(f.orders)}
	for _, e := range f.ledger {
		happened["entry "+string(e.Event)]++
		if e.Event == claimed && e.Attempt > 1 && e.Queue != byHand {
			happened["second attempt on "+e.Queue]++
		}
	}
	for h := range f.effects {
		happened["effect "+h.kind]++
	}
	for _, m := range f.messages {
		happened["message on "+m.Queue]++
	}
	var none []string
	for _, what := range []string{"order", "entry enqueued", "entry started", "entry claimed", "entry extended", "entry ended", "entry acked",
		"second attempt on plain", "second attempt on booked", "effect booked", "effect acked", "effect reserve", "effect book",
		"message on plain", "message on booked", "message on by hand", "message on order"} {
		if happened[what] == 0 {
			none = append(none, what)
		}
	}
	return none
}

// readFacts reads the database by the library's own listings, and the
// children's tables.
func readFacts(t *testing.T, store *pgqrs.Store) *facts {
	t.Helper()
	f := &facts{messages: map[int64]pgqrs.MessageInfo{}, runs: map[int64]pgqrs.RunInfo{}, effects: map[happening]int{}, orders: map[string]int{}}
	for _, queue := range []string{plain, booked, byHand, order} {
		for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead} {
			filter := pgqrs.MessageFilter{Queue: queue, State: state, Limit: 1000}
			for {
				page, err := store.Messages(t.Context(), filter)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range page {
					f.messages[m.ID] = m
				}
				if len(page) < filter.Limit {
					break
				}
				filter.After = page[len(page)-1].Cursor
			}
		}
	}
	filter := pgqrs.RunFilter{Limit: 1000}
	for {
		page, err := store.Runs(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			f.runs[r.ID] = r
		}
		if len(page) < filter.Limit {
			break
		}
		filter.Before = page[len(page)-1].ID
	}
	count(t, store, `SELECT kind, id FROM effects`, func(scan func(...any) error) error {
		var h happening
		err := scan(&h.kind, &h.id)
		f.effects[h]++
		return err
	})
	count(t, store, `SELECT token FROM orders`, func(scan func(...any) error) error {
		var token string
		err := scan(&token)
		f.orders[token]++
		return err
	})
	return f
}

func count(t *testing.T, store *pgqrs.Store, query string, row func(scan func(...any) error) error) {
	t.Helper()
	rows, err := store.DB().QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
