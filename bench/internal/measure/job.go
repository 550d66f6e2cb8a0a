package measure

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"
)

// A Job is the payload of all messages: about 100 bytes as JSON.
type Job struct {
	ID       int64  `json:"id"` // for latencies: when it was sent, in nanoseconds since 1970
	To       string `json:"to"`
	Template string `json:"template"`
	Locale   string `json:"locale"`
}

// NewJob returns a job.
func NewJob(id int64) Job {
	return Job{ID: id, To: "ada.lovelace@example.com", Template: "welcome-to-the-newsletter", Locale: "en-GB"}
}

// Text returns a job in its stored form.
func (j Job) Text() string {
	text, err := json.Marshal(j)
	if err != nil {
		panic(err) // the fields always encode
	}
	return string(text)
}

// Jobs returns n jobs.
func Jobs(n int) []Job {
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i] = NewJob(1e15 + int64(i))
	}
	return jobs
}

// Wait waits for d, or returns ctx's error if ctx ends first.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Pause waits for a random time between least and most. So the next action is not in step with any
// poll.
func Pause(least, most time.Duration) {
	time.Sleep(least + rand.N(most-least))
}
