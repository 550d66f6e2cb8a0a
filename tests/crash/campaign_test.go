//go:build unix

package crash_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything that has to happen may take.
const patience = time.Minute

// team are the roles that work at the same time.
var team = []string{"producer", "worker", "worker", "consumer"}

// A campaign is a team of children that work on one database, and are killed and replaced.
type campaign struct {
	t        *testing.T
	dsn      string
	ledgers  string // directory
	random   *rand.Rand
	children []*process // one for each of team
	made     int        // children so far
	kills    int
	runs     int // acknowledged to producers, except those that are alive
}

// A process is a child from its parent's view.
type process struct {
	assignment
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr tail
	ready  chan struct{} // closed when the child reports that it is ready
	exited chan struct{} // closed when the child has exited, with err
	err    error
}

func newCampaign(t *testing.T, dsn string, seed uint64) *campaign {
	c := &campaign{t: t, dsn: dsn, ledgers: t.TempDir(), random: rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() {
		for _, p := range c.children {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	})
	c.children = make([]*process, 0, len(team))
	for i := range team {
		c.children = append(c.children, c.spawn(i))
	}
	return c
}

// spawn starts the child for place i of the team.
func (c *campaign) spawn(i int) *process {
	c.t.Helper()
	c.made++
	name := fmt.Sprintf("%05d-%s", c.made, team[i])
	p := &process{ready: make(chan struct{}), exited: make(chan struct{})}
	p.assignment = assignment{
		DSN: c.dsn, Role: team[i], Name: name, Ledger: filepath.Join(c.ledgers, name), Seed: c.random.Uint64(),
	}
	if p.Role == "producer" {
		p.Runs = c.runs
	}
	text, err := json.Marshal(p.assignment)
	if err != nil {
		c.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	p.cmd.Stderr = &p.stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		if line, _ := bufio.NewReader(stdout).ReadString('\n'); line == readyLine+"\n" {
			close(p.ready)
		}
		p.err = p.cmd.Wait()
	}()
	return p
}

// strike kills one child, or sometimes all of them, at a random instant, and replaces what it
// killed.
func (c *campaign) strike() {
	c.t.Helper()
	first := c.random.IntN(len(c.children))
	victims := c.children[first : first+1]
	if c.random.IntN(8) == 0 {
		first, victims = 0, c.children
	}
	if c.random.IntN(8) != 0 { // otherwise it may not have come far
		for _, p := range victims {
			c.await(p)
		}
	}
	instant := time.NewTimer(time.Duration(c.random.IntN(500_000)) * time.Microsecond)
	<-instant.C
	for _, p := range victims {
		if err := p.cmd.Process.Kill(); err != nil {
			c.t.Fatalf("kill %s: %v\n%s", p.Name, err, &p.stderr)
		}
	}
	for i, p := range victims {
		<-p.exited
		if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			c.t.Fatalf("%s ended before it was killed: %v\n%s", p.Name, p.err, &p.stderr)
		}
		c.kills++
		c.runs += countStarted(readLedger(c.t, p.Ledger))
		c.children[first+i] = c.spawn(first + i)
	}
}

// await waits until the child is at work.
func (c *campaign) await(p *process) {
	c.t.Helper()
	select {
	case <-p.ready:
	case <-p.exited:
		c.t.Fatalf("%s ended by itself: %v\n%s", p.Name, p.err, &p.stderr)
	case <-time.After(patience):
		c.t.Fatalf("%s was not at work after %v\n%s", p.Name, patience, &p.stderr)
	}
}

// dismiss lets the children of a role finish their work and end.
func (c *campaign) dismiss(role string) {
	c.t.Helper()
	for _, p := range c.children {
		if p.Role != role {
			continue
		}
		c.await(p)
		p.stdin.Close()
		select {
		case <-p.exited:
		case <-time.After(patience):
			c.t.Fatalf("%s did not end %v after it was asked to\n%s", p.Name, patience, &p.stderr)
		}
		if p.err != nil {
			c.t.Errorf("%s: %v\n%s", p.Name, p.err, &p.stderr)
		}
	}
}

// A tail keeps the end of the bytes written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-8<<10):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
