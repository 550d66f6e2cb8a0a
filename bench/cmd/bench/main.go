// Command bench compares the library with hand-written SQL on the same tables, and with other
// queues. The contestants take turns within one run:
//
//	go run ./cmd/bench -engine pg
//	go run ./cmd/bench -engine sqlite -workload 'enqueue/.*' -rounds 3
//
// For each workload it prints the results of all contestants, the target ratios, and whether the
// library meets them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/pgqrs/pgqrs-go/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if was, err := bench.Child(ctx); was {
		return err
	}
	c := bench.Config{Log: os.Stderr}
	engines := flag.String("engine", "pg,sqlite", "`engines` to measure: pg, sqlite or both")
	workload := flag.String("workload", ".*", "regular `expression` that the names of the workloads must match; -list names them")
	flag.IntVar(&c.Rounds, "rounds", 5, "rounds of each workload")
	flag.DurationVar(&c.Time, "time", 2*time.Second, "how long each contestant has in a round, where time is what ends it")
	flag.DurationVar(&c.Limit, "limit", 15*time.Second, "when a drain that is not done is stopped; its rate then counts what is done")
	flag.DurationVar(&c.Hold, "hold", 30*time.Second, "how long the workload snapshot holds its snapshot; the target is about 10m")
	flag.IntVar(&c.Samples, "samples", 100, "latencies taken in a round; a quarter of them from another process")
	flag.Float64Var(&c.Scale, "scale", 1, "shortens all numbers of messages by this `factor`; the targets are about 1")
	flag.StringVar(&c.Postgres, "postgres", "", "`DSN` of a PostgreSQL server to use; without it one is started, with initdb and postgres from PATH or /usr/lib/postgresql")
	flag.StringVar(&c.Dir, "dir", os.TempDir(), "`directory` to make databases in; it must not be in memory")
	flag.StringVar(&c.Profiles, "cpuprofile", "", "`directory` for a CPU profile of the library's rounds, one a workload")
	flag.BoolVar(&c.Count, "statements", false, "run the library once more in each workload, and count its statements by tag")
	jsonFile := flag.String("json", "", "`file` for the whole report as JSON")
	markdown := flag.String("markdown", "", "`file` for the report as docs/BENCHMARKS.md has it")
	svg := flag.String("svg", "", "`file` for a plot")
	list := flag.Bool("list", false, "name the workloads and leave")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	c.Engines = strings.Split(*engines, ",")
	if *list {
		return printList(c)
	}
	var err error
	if c.Workload, err = regexp.Compile("^(?:" + *workload + ")$"); err != nil {
		return err
	}
	report, err := bench.Run(ctx, c)
	if report == nil {
		return err
	}
	err = errors.Join(err, report.Text(os.Stdout),
		write(*jsonFile, func(w io.Writer) error {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "\t")
			return encoder.Encode(report)
		}),
		write(*markdown, report.Markdown), write(*svg, report.SVG))
	if err == nil && report.Failed() {
		err = errors.New("some contestants failed; the report says which")
	}
	return err
}

func printList(c bench.Config) error {
	for _, engine := range c.Engines {
		names, err := c.Workloads(engine)
		if err != nil {
			return err
		}
		fmt.Println(engine)
		for _, name := range names {
			fmt.Println("\t" + name)
		}
	}
	return nil
}

// write writes a file, unless the name is empty.
func write(name string, fn func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}
