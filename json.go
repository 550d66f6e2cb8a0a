package pgqrs

import (
	"bytes"
	"encoding/json"
	"time"
)

// MarshalJSON writes a message with its decoded payload. Message needs the method, because the
// MarshalJSON of the embedded struct would leave the payload out.
func (m Message[T]) MarshalJSON() ([]byte, error) {
	type info MessageInfo
	return marshal(struct {
		info
		PayloadSize int64 `json:"payload_size,omitempty"`
		Payload     T     `json:"payload"`
	}{info(m.MessageInfo), sizeIfCut(m.PayloadSize, m.Cut), m.Payload})
}

// MarshalJSON writes a payload that a listing has cut as a string, with its size.
func (m MessageInfo) MarshalJSON() ([]byte, error) {
	type info MessageInfo
	return marshal(struct {
		info
		PayloadSize int64 `json:"payload_size,omitempty"`
		Raw         any   `json:"payload"`
	}{info(m), sizeIfCut(m.PayloadSize, m.Cut), jsonOrText(m.Raw)})
}

// MarshalJSON writes the duration in seconds.
func (q QueueInfo) MarshalJSON() ([]byte, error) {
	type info QueueInfo
	return marshal(struct {
		info
		OldestReady seconds `json:"oldest_ready_seconds"`
	}{info(q), seconds(q.OldestReady)})
}

// MarshalJSON writes the duration in seconds.
func (q QueueDepth) MarshalJSON() ([]byte, error) {
	type info QueueDepth
	return marshal(struct {
		info
		OldestReady seconds `json:"oldest_ready_seconds"`
	}{info(q), seconds(q.OldestReady)})
}

// MarshalJSON writes durations in seconds, and leaves out limits that are not set.
func (p PolicyInfo) MarshalJSON() ([]byte, error) {
	type info PolicyInfo
	return marshal(struct {
		info
		Timeout   seconds `json:"timeout_seconds,omitzero"`
		Lease     seconds `json:"lease_seconds,omitzero"`
		Retention seconds `json:"retention_seconds,omitzero"`
	}{info(p), seconds(p.Timeout), seconds(p.Lease), seconds(p.Retention)})
}

// MarshalJSON writes the duration in seconds.
func (r Rate) MarshalJSON() ([]byte, error) {
	type rate Rate
	return marshal(struct {
		rate
		Per seconds `json:"per_seconds"`
	}{rate(r), seconds(r.Per)})
}

// MarshalJSON writes an input or output that a listing has cut as a string, with its size.
func (i RunInfo) MarshalJSON() ([]byte, error) {
	type info RunInfo
	return marshal(struct {
		info
		InputSize  int64 `json:"input_size,omitempty"`
		OutputSize int64 `json:"output_size,omitempty"`
		Input      any   `json:"input,omitempty"`
		Output     any   `json:"output,omitempty"`
	}{info(i), sizeIfCut(i.InputSize, i.Cut), sizeIfCut(i.OutputSize, i.Cut), jsonOrText(i.Input), jsonOrText(i.Output)})
}

// MarshalJSON writes an output that a listing has cut as a string, with its size. The duration is
// in seconds.
func (i StepInfo) MarshalJSON() ([]byte, error) {
	type info StepInfo
	return marshal(struct {
		info
		OutputSize int64   `json:"output_size,omitempty"`
		Output     any     `json:"output,omitempty"`
		RetryIn    seconds `json:"retry_in_seconds,omitzero"`
	}{info(i), sizeIfCut(i.OutputSize, i.Cut), jsonOrText(i.Output), seconds(i.RetryIn)})
}

// MarshalJSON writes a payload that a listing has cut as a string, with its size.
func (i ScheduleInfo) MarshalJSON() ([]byte, error) {
	type info ScheduleInfo
	return marshal(struct {
		info
		PayloadSize int64 `json:"payload_size,omitempty"`
		Payload     any   `json:"payload"`
	}{info(i), sizeIfCut(i.PayloadSize, i.Cut), jsonOrText(i.Payload)})
}

// seconds is a duration that is a number of seconds in JSON.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

// sizeIfCut returns the size of a text that a listing has cut, and 0 for a whole text. The size of
// a whole text differs between databases, which keep different spaces.
func sizeIfCut(size int64, cut bool) int64 {
	if !cut {
		return 0
	}
	return size
}

// jsonOrText returns stored JSON for use in an object: unchanged, or as a string if it is not JSON.
func jsonOrText(stored json.RawMessage) any {
	switch {
	case len(stored) == 0:
		return nil
	case json.Valid(stored):
		return stored
	}
	return string(stored)
}

// marshal is json.Marshal without the escaping of <, > and &, which the caller's encoder does.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return out.Bytes(), err
}
