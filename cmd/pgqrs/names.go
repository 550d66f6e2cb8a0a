package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// nameFlags returns the flags of a command that lists named things one page at a time.
func nameFlags(thing string) []cli.Flag {
	flags := pageFlags(thing)
	flags[0] = &cli.IntFlag{Name: "limit", Value: 1000, Usage: "list up to `N`, at most 1000", Validator: within(1, 1000)}
	return flags
}

// namesOf returns the names of things.
func namesOf[T any](things []T, name func(T) string) []string {
	var list []string
	for _, thing := range things {
		list = append(list, name(thing))
	}
	return list
}

// A part is a range of a list.
type part struct{ from, to int }

// pageOf returns the part of a list of names that the flags ask for. If names follow, it returns
// the name after which the next page begins.
func (c call) pageOf(what string, list []string) (page part, next string, err error) {
	if after := c.String("after"); after != "" {
		page.from = slices.Index(list, after) + 1
		if page.from == 0 {
			return part{}, "", notFound("%s %q", what, after)
		}
	}
	page.to = len(list)
	if end := page.from + c.Int("limit"); end < page.to && !c.Bool("all") {
		page.to, next = end, list[end-1]
	}
	return page, next, nil
}

// moreNames prints how to get the next page, if there is one. A name can be any text that somebody
// enqueued to, so the printed flag is safe to copy into a shell.
func (c call) moreNames(next string) error {
	if next == "" {
		return nil
	}
	return c.more("-after '" + strings.ReplaceAll(next, "'", `'\''`) + "'")
}
