package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A batch is stored when it has this many messages or bytes.
const (
	batchMessages = 500
	batchBytes    = 4 << 20
)

// A loader enqueues lines in batches.
type loader struct {
	queue *pgqrs.Queue[json.RawMessage]
	opts  []pgqrs.Option
	text  bool // whether lines are text, not JSON
	bar   *bar

	batch  []json.RawMessage
	bytes  int
	first  int // the first line of the batch
	line   int
	read   int64 // bytes
	stored int64
}

func (l *loader) load(ctx context.Context, in io.Reader) error {
	reader := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("line %d: %w", l.line+1, err)
		}
		l.line++
		l.read += int64(len(line))
		if line = bytes.TrimRight(line, "\r\n"); len(bytes.TrimSpace(line)) > 0 {
			if err := l.add(line); err != nil {
				return errors.Join(fmt.Errorf("line %d: %w", l.line, err), l.flush(ctx))
			}
		}
		if err == io.EOF || len(l.batch) == batchMessages || l.bytes >= batchBytes {
			if err := l.flush(ctx); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (l *loader) add(line []byte) (err error) {
	payload := json.RawMessage(line)
	if l.text {
		payload, err = json.Marshal(string(line))
	} else if !json.Valid(line) {
		err = fmt.Errorf("%w: it is not JSON", pgqrs.ErrInvalidPayload)
	}
	if err != nil {
		return err
	}
	if len(l.batch) == 0 {
		l.first = l.line
	}
	l.batch = append(l.batch, payload)
	l.bytes += len(payload)
	return nil
}

// flush stores the batch.
func (l *loader) flush(ctx context.Context) error {
	if len(l.batch) == 0 {
		return nil
	}
	ids, err := l.queue.EnqueueBatch(ctx, l.batch, l.opts...)
	if err != nil {
		return fmt.Errorf("lines %d to %d: %w", l.first, l.line, err)
	}
	l.stored += int64(len(ids))
	l.batch, l.bytes = l.batch[:0], 0
	l.bar.show(l.read, l.stored)
	return nil
}

// A bar shows the progress on a line of a terminal. A nil bar shows nothing.
type bar struct {
	out   io.Writer
	size  int64 // of the input in bytes, or 0 if it is unknown
	shown time.Time
}

const barWidth = 40

func (b *bar) show(read, stored int64) {
	if b == nil || time.Since(b.shown) < 100*time.Millisecond {
		return
	}
	b.shown = time.Now()
	fmt.Fprint(b.out, "\r", b.text(read, stored), "\x1b[K")
}

func (b *bar) text(read, stored int64) string {
	if b.size == 0 {
		return plural(stored, "message")
	}
	part := min(float64(read)/float64(b.size), 1)
	full := int(part * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), 100*part, plural(stored, "message"))
}

func (b *bar) clear() {
	if b != nil {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
