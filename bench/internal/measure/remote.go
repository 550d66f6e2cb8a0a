package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// A Request opens a session in another process. It is the first line of that process's standard
// input, as JSON. Each further line asks for a round, whatever its text. Every line is answered by
// one line with a Reply. The end of the input closes the session.
type Request struct {
	Contestant string
	Workload   string
	Spec       Spec
}

// A Reply answers a line.
type Reply struct {
	// Facts answer a Request: the settings that the database reported.
	Facts  []string `json:",omitempty"`
	Sample Sample   `json:",omitempty"`
	Error  string   `json:",omitempty"`
}

// Serve serves a session in the other process.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(context.Context, Request) (*Session, []string, error)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	reply := json.NewEncoder(out)
	if !lines.Scan() {
		return errors.Join(errors.New("no request"), lines.Err())
	}
	var request Request
	if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	session, facts, err := open(ctx, request)
	if err != nil {
		return reply.Encode(Reply{Error: err.Error()})
	}
	if err := reply.Encode(Reply{Facts: facts}); err != nil {
		return errors.Join(err, session.Close())
	}
	for lines.Scan() {
		var r Reply
		if r.Sample, err = session.Round(ctx); err != nil {
			r.Error = err.Error()
		}
		if err := reply.Encode(r); err != nil {
			return errors.Join(err, session.Close())
		}
	}
	return errors.Join(lines.Err(), session.Close())
}

// Remote starts a command and opens a session in its process. The session must not be used
// concurrently.
func Remote(cmd *exec.Cmd, request Request) (*Session, []string, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	answers := json.NewDecoder(out)
	ask := func(question any) (Reply, error) {
		var reply Reply
		if err := json.NewEncoder(in).Encode(question); err != nil {
			return reply, fmt.Errorf("ask %s: %w", request.Contestant, err)
		}
		if err := answers.Decode(&reply); err != nil {
			return reply, fmt.Errorf("answer of %s: %w", request.Contestant, err)
		}
		if reply.Error != "" {
			return reply, errors.New(reply.Error)
		}
		return reply, nil
	}
	session := &Session{
		Round: func(context.Context) (Sample, error) {
			reply, err := ask("round")
			return reply.Sample, err
		},
		Close: func() error {
			in.Close()
			return cmd.Wait()
		},
	}
	reply, err := ask(request)
	if err != nil {
		return nil, nil, errors.Join(err, session.Close())
	}
	return session, reply.Facts, nil
}
