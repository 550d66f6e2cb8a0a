//go:build unix

package crash_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// honest returns facts without any error: a message of each kind, a run, and one message that had
// to be delivered twice.
func honest() *facts {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	message := func(id int64, queue, payload string) pgqrs.MessageInfo {
		return pgqrs.MessageInfo{ID: id, Queue: queue, State: pgqrs.Archived, Raw: json.RawMessage(payload)}
	}
	return &facts{
		messages: map[int64]pgqrs.MessageInfo{
			1: message(1, plain, `{"Token": "a"}`),
			2: message(2, booked, `{"Token": "b", "Ordered": true}`),
			3: message(3, byHand, `{"Token": "c"}`),
			4: message(4, order, `{"input": {"N": 7}}`),
		},
		runs: map[int64]pgqrs.RunInfo{
			9: {ID: 9, Key: "run-7", Status: pgqrs.Succeeded, Input: json.RawMessage(`{"input": {"N": 7}}`), Output: json.RawMessage(`{"Price": 21, "Reserved": 8}`)},
		},
		effects: map[happening]int{{bookedEffect, 2}: 1, {ackedEffect, 3}: 1, {reserveEffect, 9}: 1, {bookEffect, 9}: 1},
		orders:  map[string]int{"b": 1},
		ledger: []entry{
			{Event: enqueued, Token: "a", ID: 1}, {Event: enqueued, Token: "b", ID: 2}, {Event: started, Token: "run-7", ID: 9},
			{Event: claimed, Queue: plain, ID: 1, Claim: 1, Attempt: 1, Until: at(1)},
			{Event: claimed, Queue: plain, ID: 1, Claim: 2, Attempt: 2, Until: at(2.5)},
			{Event: claimed, Queue: byHand, ID: 3, Claim: 1, Attempt: 1, Until: at(1)},
			{Event: extended, ID: 3, Claim: 1, Until: at(2)},
			{Event: ended, ID: 3, Claim: 1, At: at(1.5)},
			{Event: claimed, Queue: byHand, ID: 3, Claim: 2, Attempt: 1, Until: at(2.6)},
			{Event: acked, ID: 3, Claim: 2},
		},
	}
}

func TestHonestFactsPassTheAudit(t *testing.T) {
	if a := honest().audit(); len(a.lost)+len(a.doubled)+len(a.broken) > 0 {
		t.Errorf("%+v", a)
	}
}

// Each case is one error that the audit must find.
func TestTheAuditFinds(t *testing.T) {
	change := func(f *facts, id int64, with func(*pgqrs.MessageInfo)) {
		m := f.messages[id]
		with(&m)
		f.messages[id] = m
	}
	add := func(f *facts, e entry) { f.ledger = append(f.ledger, e) }
	for name, wrong := range map[string]struct {
		kind string
		do   func(*facts)
	}{
		"an acknowledged message that is not there": {"lost", func(f *facts) { add(f, entry{Event: enqueued, Token: "z", ID: 77}) }},
		"a message that is another than was said":   {"lost", func(f *facts) { add(f, entry{Event: enqueued, Token: "a", ID: 2}) }},
		"a message that is still leased":            {"lost", func(f *facts) { change(f, 1, func(m *pgqrs.MessageInfo) { m.State = pgqrs.Leased }) }},
		"a dead message":                            {"lost", func(f *facts) { change(f, 1, func(m *pgqrs.MessageInfo) { m.State = pgqrs.Dead }) }},
		"an order without its message":              {"lost", func(f *facts) { f.orders["z"] = 1 }},
		"an acknowledged run that is not there":     {"lost", func(f *facts) { add(f, entry{Event: started, Token: "run-8", ID: 10}) }},
		"a run that has not ended":                  {"lost", func(f *facts) { r := f.runs[9]; r.Status = pgqrs.Running; f.runs[9] = r }},
		"a missing effect of HandleTx":              {"lost", func(f *facts) { delete(f.effects, happening{bookedEffect, 2}) }},
		"a missing effect of StepTx":                {"lost", func(f *facts) { delete(f.effects, happening{bookEffect, 9}) }},
		"a message stored twice":                    {"doubled", func(f *facts) { change(f, 3, func(m *pgqrs.MessageInfo) { m.Raw = json.RawMessage(`{"Token": "a"}`) }) }},
		"a run started twice": {"doubled", func(f *facts) {
			f.runs[10] = f.runs[9]
			f.effects[happening{reserveEffect, 10}] = 1
			f.effects[happening{bookEffect, 10}] = 1
		}},
		"an order that is there twice":              {"doubled", func(f *facts) { f.orders["b"] = 2 }},
		"an effect that is there twice":             {"doubled", func(f *facts) { f.effects[happening{reserveEffect, 9}] = 2 }},
		"a second ack":                              {"doubled", func(f *facts) { add(f, entry{Event: acked, ID: 3, Claim: 1}) }},
		"a delivery after an ack":                   {"doubled", func(f *facts) { add(f, entry{Event: acked, ID: 1, Claim: 1}) }},
		"a message without its order":               {"broken", func(f *facts) { delete(f.orders, "b") }},
		"a wrong output":                            {"broken", func(f *facts) { r := f.runs[9]; r.Output = json.RawMessage(`{"Price": 1}`); f.runs[9] = r }},
		"a run without its key":                     {"broken", func(f *facts) { f.ledger[2].Token = ""; r := f.runs[9]; r.Key = ""; f.runs[9] = r }},
		"an effect of nothing":                      {"broken", func(f *facts) { f.effects[happening{bookedEffect, 77}] = 1 }},
		"one claim in two hands":                    {"broken", func(f *facts) { add(f, f.ledger[3]) }},
		"leases that overlap":                       {"broken", func(f *facts) { f.ledger[4].Until = f.ledger[3].Until.Add(lease - 50*time.Millisecond) }},
		"leases that overlap once one was extended": {"broken", func(f *facts) { f.ledger[7].At = f.ledger[6].Until }},
		"an attempt that was not counted":           {"broken", func(f *facts) { f.ledger[4].Attempt = 1 }},
	} {
		f := honest()
		wrong.do(f)
		a := f.audit()
		got := map[string]int{"lost": len(a.lost), "doubled": len(a.doubled), "broken": len(a.broken)}
		for kind, n := range got {
			want := 0
			if kind == wrong.kind {
				want = 1
			}
			if n != want {
				t.Errorf("%s: %d findings that something is %s, want %d: %+v", name, n, kind, want, a)
			}
		}
	}
}

func TestALineThatWasCutShortDoesNotCount(t *testing.T) {
	got, err := parseLedger([]byte("{\"event\":\"acked\",\"id\":5}\n{\"event\":\"ack"))
	if err != nil || len(got) != 1 || got[0].ID != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseLedger([]byte("{\"event\n{}\n")); err == nil {
		t.Error("a broken line in the middle was taken")
	}
}
