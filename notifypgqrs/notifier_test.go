package notifypgqrs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go/notifypgqrs"
)

// The library logs the errors of Listen.
func TestErrorsHoldNoPassword(t *testing.T) {
	for _, dsn := range []string{
		"postgres://ada:hunter 2@127.0.0.1:1/db", "postgres://ada:hunter 2%zz@127.0.0.1:1/db", "postgres://ada:hunter 2", "postgres://ada:hunter%202@127.0.0.1:1/db?sslmode=disable",
		"postgres://ada:hunter%202@127.0.0.1:x/db", "host=127.0.0.1 port=1 password='hunter 2'", "password='hunter 2",
	} {
		err := (&notifypgqrs.Notifier{DSN: dsn}).Listen(t.Context(), func(string) {})
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); err == nil || strings.Contains(text, "hunter") {
			t.Errorf("%s: the password stands in %s", dsn, text)
		}
	}
}
