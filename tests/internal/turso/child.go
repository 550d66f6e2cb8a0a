package turso

import (
	"bufio"
	"bytes"
	"context"
	"database/sql/driver"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
)

//go:embed child.mjs
var script string

// running returns the child of this test binary, and starts it if necessary.
var running = sync.OnceValues(func() (*child, error) {
	dir, err := engine()
	if err != nil {
		return nil, err
	}
	return start(dir)
})

// A child is the Node process. It is safe for concurrent use.
type child struct {
	lastConn, lastRequest atomic.Int64

	// writing is never held with mu, because the process may read nothing before its answers are
	// read.
	writing sync.Mutex
	in      io.Writer

	mu      sync.Mutex
	waiting map[int64]chan response // by request
	err     error                   // why the process is gone
}

// A request asks for one operation. Only the fields that it needs are set.
type request struct {
	ID      int64    `json:"id"`
	Op      string   `json:"op"` // open, run, cancel or close
	Conn    int64    `json:"conn"`
	Path    string   `json:"path,omitempty"`
	Options *options `json:"options,omitempty"`
	SQL     string   `json:"sql,omitempty"`
	Args    []value  `json:"args,omitzero"`
	Query   bool     `json:"query,omitempty"`  // whether it returns rows
	Target  int64    `json:"target,omitempty"` // the request to cancel
}

type response struct {
	ID      int64     `json:"id"`
	Error   string    `json:"error"`
	Tx      bool      `json:"tx"` // a transaction is open
	Columns []column  `json:"columns"`
	Rows    [][]value `json:"rows"`
	Changes int64     `json:"changes"`
	Last    int64     `json:"last,string"`
}

type column struct{ Name, Type string }

// start starts the process. It ends with this process, which closes its stdin.
func start(dir string) (*child, error) {
	cmd := exec.Command("node", "--input-type=module", "--eval", script)
	cmd.Dir = dir // where the script's imports are found
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{in: in, waiting: map[int64]chan response{}}
	go func() {
		err := c.read(out)
		err = errors.Join(err, cmd.Wait())
		c.end(fmt.Errorf("turso: the Node process ended: %w\n%s", err, stderr.Bytes()))
	}()
	return c, nil
}

// read passes responses on until there are no more.
func (c *child) read(out io.Reader) error {
	for in := bufio.NewReader(out); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		var answer response
		if err := json.Unmarshal(line, &answer); err != nil {
			return fmt.Errorf("%w in %q", err, line)
		}
		c.mu.Lock()
		to := c.waiting[answer.ID]
		delete(c.waiting, answer.ID)
		c.mu.Unlock()
		if to != nil {
			to <- answer
		}
	}
}

// end makes all present and future calls fail.
func (c *child) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, to := range c.waiting {
		close(to)
	}
	c.waiting = nil
}

// call sends a request and waits for its response. If ctx ends first, a wait for a lock is given
// up. Everything else runs to its end.
func (c *child) call(ctx context.Context, r request) (response, error) {
	if err := ctx.Err(); err != nil {
		return response{}, err
	}
	r.ID = c.lastRequest.Add(1)
	to := make(chan response, 1)
	if err := c.send(r, to); err != nil {
		return response{}, err
	}
	var answer response
	var alive bool
	select {
	case answer, alive = <-to:
	case <-ctx.Done():
		if err := c.send(request{ID: c.lastRequest.Add(1), Op: "cancel", Conn: r.Conn, Target: r.ID}, nil); err != nil {
			return response{}, err
		}
		answer, alive = <-to
	}
	switch {
	case !alive:
		return response{}, c.gone()
	case answer.Error != "" && ctx.Err() != nil:
		return answer, fmt.Errorf("turso: %s (%w)", answer.Error, ctx.Err())
	case answer.Error != "":
		return answer, errors.New("turso: " + answer.Error)
	}
	return answer, nil
}

// send sends a request, and a channel for the response, if there is one.
func (c *child) send(r request, to chan response) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := c.expect(r.ID, to); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return errors.Join(driver.ErrBadConn, err)
	}
	return nil
}

func (c *child) expect(id int64, to chan response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return errors.Join(driver.ErrBadConn, c.err)
	}
	if to != nil {
		c.waiting[id] = to
	}
	return nil
}

func (c *child) gone() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(driver.ErrBadConn, c.err)
}
