// Mutate proves that the tests notice when a guard is removed from the library. It makes the small
// changes of mutations.txt, one after the other, in a copy of the tree, and runs the tests that
// should fail. For each change it prints the test that failed and the time that took.
//
// It exits with status 1 if a mutation survived, does not apply, or does not compile. It does so
// too if the tests fail without a mutation.
//
//	mutate                   all mutations
//	mutate NAME...           the named mutations
//	mutate -jobs 8 NAME...   8 at a time, instead of one for each core and at least two
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

//go:embed mutations.txt
var source string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	jobs := flag.Int("jobs", max(2, runtime.NumCPU()), "mutations to try at a time")
	flag.Parse()
	if err := mutate(ctx, *jobs, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func mutate(ctx context.Context, jobs int, names []string) (err error) {
	list, err := parse(source)
	if err != nil {
		return err
	}
	if list, err = choose(list, names); err != nil {
		return err
	}
	trees, err := newTrees(ctx, max(1, min(len(list), jobs)))
	defer func() { err = errors.Join(err, trees.remove()) }()
	if err != nil {
		return err
	}
	if os.Getenv("PGQRS_TEST_POSTGRES") == "" {
		server, err := postgres.Start() // one for all runs
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		trees.setenv("PGQRS_TEST_POSTGRES=" + server.DSN())
	}
	if err := trees[0].sound(ctx, list); err != nil {
		return err
	}
	return trees.try(ctx, list)
}

// choose returns the named mutations, or all if there are no names.
func choose(list []mutation, names []string) ([]mutation, error) {
	for _, name := range names {
		if !slices.ContainsFunc(list, func(m mutation) bool { return m.name == name }) {
			return nil, fmt.Errorf("there is no mutation %q", name)
		}
	}
	if len(names) == 0 {
		return list, nil
	}
	return slices.DeleteFunc(list, func(m mutation) bool { return !slices.Contains(names, m.name) }), nil
}

// A result is the outcome of a mutation.
type result struct {
	mutation
	caught string // the first test that failed, or ""
	err    error
	took   time.Duration
}

// try makes the mutations, several at a time, each in a tree of its own, and prints their outcomes.
func (ts trees) try(ctx context.Context, list []mutation) error {
	todo, results := make(chan mutation, len(list)), make(chan result)
	for _, m := range list {
		todo <- m
	}
	close(todo)
	for _, t := range ts {
		go func() {
			for m := range todo {
				start := time.Now()
				caught, err := t.mutant(ctx, m)
				results <- result{m, caught, err, time.Since(start)}
			}
		}()
	}
	var survived, broken []string
	for range list {
		r := <-results
		caught := r.caught
		switch {
		case r.err != nil:
			broken = append(broken, r.name)
			caught = "BROKEN: " + r.err.Error()
		case caught == "":
			survived = append(survived, r.name)
			caught = "SURVIVED"
		}
		if ctx.Err() == nil {
			fmt.Printf("%-22s %5.1f s  %2d: %s\n%34s%s\n", r.name, r.took.Seconds(), r.guarantee, r.breaks, "", caught)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Printf("\n%d mutations, %d survived, %d broken\n", len(list), len(survived), len(broken))
	if len(survived)+len(broken) > 0 {
		return fmt.Errorf("survived: %s; broken: %s", orNone(survived), orNone(broken))
	}
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// mutant makes one mutation, and returns the first test that fails because of it, or "".
func (t *tree) mutant(ctx context.Context, m mutation) (caught string, err error) {
	restore, err := m.apply(t.dir)
	defer func() { err = errors.Join(err, restore()) }()
	if err != nil {
		return "", err
	}
	for _, test := range m.tests {
		caught, _, err := t.test(ctx, test)
		if err != nil || caught != "" {
			return caught, err
		}
	}
	return "", nil
}
