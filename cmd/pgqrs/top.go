package main

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) top() *cli.Command {
	return &cli.Command{
		Name: "top", Category: look, Usage: "queues, live, with the messages, workers and runs of one of them",
		Description: "Arrows or j and k select a queue. tab switches between its panels. s sorts by the next column, and r reverses the order. " +
			"space freezes the screen, and q ends the command. It only reads.",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "read every `TIME`, or less often if the database is slow"}},
		Action: a.on(0, 0, func(ctx context.Context, c call) error {
			if c.width == 0 {
				return misuse(c.Command, "top needs a terminal; stats does not")
			}
			if c.Duration("interval") <= 0 {
				return misuse(c.Command, "-interval must be more than 0")
			}
			s := &screen{ctx: ctx, store: c.store, interval: c.Duration("interval"), width: c.width, height: c.height}
			_, err := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(c.in), tea.WithOutput(c.out)).Run()
			if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
				return nil
			}
			return err
		}),
	}
}

// A screen is the tea.Model of top.
type screen struct {
	ctx      context.Context // for the screen's database calls, because bubbletea passes none
	store    *pgqrs.Store
	interval time.Duration

	width, height int

	last   snapshot
	paces  []pace // in the order on the screen
	detail detail
	err    error // of the latest read of the database

	selected string // a queue
	panel    int
	order    int // an index of orders
	backward bool
	frozen   bool
}

// A glance is the result of reading the database.
type glance struct {
	snapshot
	detail
	took time.Duration
	err  error
}

// A tick is the message that it is time to read the database.
type tick struct{}

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return s.look() }

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return s, s.press(msg.String())
	case glance:
		return s, s.take(msg)
	case detail:
		s.put(msg)
	case tick:
		if s.frozen {
			return s, s.later(0)
		}
		return s, s.look()
	}
	return s, nil
}

// press handles a key.
func (s *screen) press(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "up", "k":
		return s.move(-1)
	case "down", "j":
		return s.move(1)
	case "tab":
		return s.turn(1)
	case "shift+tab":
		return s.turn(len(panels) - 1)
	case "s":
		s.order, s.backward = (s.order+1)%len(orders), false
		s.sort()
	case "r":
		s.backward = !s.backward
		s.sort()
	case "space":
		s.frozen = !s.frozen
	}
	return nil
}

// move moves the selection by a number of queues.
func (s *screen) move(by int) tea.Cmd {
	if len(s.paces) == 0 {
		return nil
	}
	to := min(max(s.index()+by, 0), len(s.paces)-1)
	s.selected = s.paces[to].Name
	return s.lookCloser()
}

// turn moves to another panel.
func (s *screen) turn(by int) tea.Cmd {
	s.panel = (s.panel + by) % len(panels)
	return s.lookCloser()
}

// take stores the result of reading the database, and schedules the next read.
func (s *screen) take(g glance) tea.Cmd {
	s.err = g.err
	if g.err == nil && !s.frozen {
		s.paces = g.paces(s.last)
		s.last = g.snapshot
		s.sort()
		if s.selected == "" && len(s.paces) > 0 {
			s.selected = s.paces[0].Name
			return tea.Batch(s.lookCloser(), s.later(g.took))
		}
		s.put(g.detail)
	}
	return s.later(g.took)
}

// put stores the detail of a queue, unless another queue has been selected meanwhile.
func (s *screen) put(d detail) {
	if d.queue == s.selected && d.panel == s.panel {
		s.detail = d
		if d.err != nil {
			s.err = d.err
		}
	}
}

// later ticks after the interval, or after five times as long as the last read took.
func (s *screen) later(took time.Duration) tea.Cmd {
	return tea.Tick(max(s.interval, 5*took), func(time.Time) tea.Msg { return tick{} })
}

// look returns a command that reads everything that is shown. Commands run beside Update, so they
// only read the values that they were made with.
func (s *screen) look() tea.Cmd {
	ctx, store, closer := s.ctx, s.store, s.closer()
	return func() tea.Msg {
		begin := time.Now()
		g := glance{}
		if g.snapshot, g.err = takeSnapshot(ctx, store); g.err == nil {
			g.detail = closer()
		}
		g.took = time.Since(begin)
		return g
	}
}

// lookCloser returns a command that reads the detail of the selected queue.
func (s *screen) lookCloser() tea.Cmd {
	closer := s.closer()
	return func() tea.Msg { return closer() }
}
