package main

import (
	"bufio"
	"fmt"
	"strings"
)

// confirm asks before data is lost. It returns an error matching errNotConfirmed unless the answer
// is yes or -yes was given.
func (c call) confirm(format string, args ...any) error {
	if c.Bool("yes") {
		return nil
	}
	question := clean(c.hide(fmt.Sprintf(format, args...)))
	if !c.asks {
		return fmt.Errorf("%w: to %s without a terminal to ask on takes -yes", errNotConfirmed, question)
	}
	fmt.Fprintf(c.err, "%s%s? [y/N] ", strings.ToUpper(question[:1]), question[1:])
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return nil
	}
	if err != nil {
		fmt.Fprintln(c.err) // the question's line has not ended yet
	}
	return errNotConfirmed
}
