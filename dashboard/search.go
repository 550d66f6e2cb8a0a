package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go"
)

// Limits of a search for text. It reads searchedEach messages of each state of a queue and as many
// runs of all workflows. The other limits are for the whole search.
const (
	searchedEach  = 500
	searchedBytes = 32 << 20
	searchedTime  = 3 * time.Second
	searchedKeys  = 200 // queues that are searched for a key
	foundMost     = 100
	longestKey    = 255 // characters
)

// A finding is a message or run that a search has found.
type finding struct {
	Kind  string // message or run
	ID    int64
	Where string // its queue or workflow
	State any    // a pgqrs.MessageState or RunState
	Why   string // the part that matches
	Text  string // the text around the match
}

type search struct {
	Query    string
	Findings []finding
	Messages int    // looked through
	Runs     int    // looked through
	Cut      string // why the search ended early
	bytes    int
}

// search finds messages and runs by id, by key, and by text.
func (d *dashboard) search(ctx context.Context, r *http.Request) (*view, error) {
	s := &search{Query: strings.TrimSpace(field(r, "q"))}
	v := &view{Page: "search", Title: "Search", Query: printable(s.Query), Body: s}
	if s.Query == "" {
		return v, nil
	}
	now, _, err := d.samples.take(ctx, d.store)
	if err != nil {
		return nil, err
	}
	if err := d.searchIDs(ctx, s); err != nil {
		return nil, err
	}
	if err := d.searchKeys(ctx, s, now.queues); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, searchedTime)
	defer cancel()
	err = d.searchText(within, s, now.queues)
	if within.Err() != nil && ctx.Err() == nil {
		err, s.Cut = nil, fmt.Sprintf("after %v", searchedTime)
	}
	return v, err
}

func (d *dashboard) searchIDs(ctx context.Context, s *search) error {
	id, err := strconv.ParseInt(s.Query, 10, 64)
	if err != nil {
		return nil
	}
	list, err := d.store.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{id}})
	if err != nil {
		return err
	}
	for _, m := range list {
		s.add(messageFinding(m, "id", m.Raw))
	}
	info, err := d.store.RunHandle(id).Info(ctx)
	switch {
	case errors.Is(err, pgqrs.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	s.add(runFinding(info, "id", info.Input))
	return nil
}

// searchKeys finds unfinished messages and runs by their key.
func (d *dashboard) searchKeys(ctx context.Context, s *search, queues []pgqrs.QueueDepth) error {
	if strings.ContainsFunc(s.Query, unicode.IsControl) || utf8.RuneCountInString(s.Query) > longestKey {
		return nil // the library stores no longer key
	}
	return d.eachQueue(ctx, queues[:min(len(queues), searchedKeys)], func(q pgqrs.QueueDepth) error { return d.searchKey(ctx, s, q.Name) })
}

// searchKey finds the unfinished message and the run of a queue that have the key.
func (d *dashboard) searchKey(ctx context.Context, s *search, queue string) error {
	list, err := d.store.Messages(ctx, pgqrs.MessageFilter{Queue: queue, Key: s.Query})
	if err != nil {
		return err
	}
	for _, m := range list {
		s.add(messageFinding(m, "key", m.Raw))
	}
	run, err := pgqrs.NewWorkflow[json.RawMessage, json.RawMessage](d.store, queue).Find(ctx, s.Query)
	if errors.Is(err, pgqrs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := run.Info(ctx)
	if err != nil {
		return err
	}
	s.add(runFinding(info, "key", info.Input))
	return nil
}

// eachQueue calls fn for each queue. An error of one queue does not keep the others from being
// searched, because the library may refuse the queue's name. An error that all queues have is
// returned.
func (d *dashboard) eachQueue(ctx context.Context, queues []pgqrs.QueueDepth, fn func(pgqrs.QueueDepth) error) error {
	var last error
	failed := 0
	for _, q := range queues {
		if err := fn(q); err != nil {
			last = err
			failed++
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed == len(queues) {
		return last
	}
	return nil
}

// searchText searches the first messages of each state of each queue, dead letters first, and then
// the latest runs.
func (d *dashboard) searchText(ctx context.Context, s *search, queues []pgqrs.QueueDepth) error {
	for _, state := range []pgqrs.MessageState{pgqrs.Dead, pgqrs.Leased, pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Archived} {
		err := d.eachQueue(ctx, queues, func(q pgqrs.QueueDepth) error { return d.searchState(ctx, s, q.Name, state) })
		if err != nil || s.Cut != "" {
			return err
		}
	}
	return d.searchRuns(ctx, s)
}

func (d *dashboard) searchState(ctx context.Context, s *search, queue string, state pgqrs.MessageState) error {
	f := pgqrs.MessageFilter{Queue: queue, State: state, Limit: pageSize}
	for range searchedEach / pageSize {
		if s.Cut != "" {
			return nil
		}
		list, err := d.store.Messages(ctx, f)
		if err != nil {
			return err
		}
		for _, m := range list {
			s.look(m)
		}
		if len(list) < pageSize {
			return nil
		}
		f.After = list[len(list)-1].Cursor
	}
	return nil
}

func (d *dashboard) searchRuns(ctx context.Context, s *search) error {
	f := pgqrs.RunFilter{Limit: pageSize}
	for range searchedEach / pageSize {
		runs, err := d.store.Runs(ctx, f)
		if err != nil {
			return err
		}
		for _, info := range runs {
			s.lookAtRun(info)
		}
		if s.Cut != "" || len(runs) < pageSize {
			return nil
		}
		f.Before = runs[len(runs)-1].ID
	}
	return nil
}

func (s *search) look(m pgqrs.MessageInfo) {
	s.Messages++
	headers, _ := json.Marshal(m.Headers) // a map of strings always encodes
	s.match(messageFinding(m, "payload", nil), m.Raw)
	s.match(messageFinding(m, "error", nil), []byte(m.LastError))
	s.match(messageFinding(m, "key", nil), []byte(m.Key))
	s.match(messageFinding(m, "headers", nil), headers)
}

func (s *search) lookAtRun(info pgqrs.RunInfo) {
	s.Runs++
	s.match(runFinding(info, "input", nil), info.Input)
	s.match(runFinding(info, "output", nil), info.Output)
	s.match(runFinding(info, "error", nil), []byte(info.Error))
	s.match(runFinding(info, "key", nil), []byte(info.Key))
}

// match adds a finding if the text contains the query, in upper or lower case.
func (s *search) match(f finding, text []byte) {
	s.bytes += len(text)
	if s.bytes > searchedBytes {
		s.Cut = "after " + size(searchedBytes)
	}
	at := bytes.Index(bytes.ToLower(text), bytes.ToLower([]byte(s.Query)))
	if at < 0 {
		return
	}
	from := max(0, min(at, len(text))-40) // the lower-case text may be longer
	f.Text = brief(text[from:])
	if from > 0 {
		f.Text = "…" + f.Text
	}
	s.add(f)
}

// add adds a finding, unless it is there already.
func (s *search) add(f finding) {
	for _, old := range s.Findings {
		if old.Kind == f.Kind && old.ID == f.ID {
			return
		}
	}
	if len(s.Findings) >= foundMost {
		s.Cut = fmt.Sprintf("after %d findings", foundMost)
		return
	}
	s.Findings = append(s.Findings, f)
}

func messageFinding(m pgqrs.MessageInfo, why string, text []byte) finding {
	return finding{"message", m.ID, m.Queue, m.State, why, brief(text)}
}

func runFinding(info pgqrs.RunInfo, why string, text []byte) finding {
	return finding{"run", info.ID, info.Workflow, info.Status, why, brief(text)}
}
