//go:build unix

package interop_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// The environment variables of a process that will be killed.
const (
	victimDialect = "PGQRS_INTEROP_DIALECT"
	victimDriver  = "PGQRS_INTEROP_DRIVER"
	victimDSN     = "PGQRS_INTEROP_DSN"
)

func TestMain(m *testing.M) {
	if dsn := os.Getenv(victimDSN); dsn != "" {
		if err := victim(os.Getenv(victimDriver), dsn, pgqrs.Dialect(os.Getenv(victimDialect))); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	postgres.Main(m)
}

// victim handles the workflow "order". It reports when it is in its second step, which never
// returns.
func victim(driver, dsn string, d pgqrs.Dialect) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	w := pgqrs.NewWorkflow[order, receipt](pgqrs.New(db, d), "order").Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		_, err := pgqrs.Step(ctx, run, "price", func(context.Context) (map[string]int, error) { return map[string]int{"each": 5}, nil })
		if err != nil {
			return receipt{}, err
		}
		return pgqrs.Step(ctx, run, "total", func(context.Context) (receipt, error) {
			fmt.Println("in the second step")
			select {}
		})
	})
	return (&pgqrs.Worker{Handlers: []pgqrs.Handler{w}}).Run(context.Background())
}

// killInSecondStep runs another Go process on the workflow "order" and kills it in its second step.
func (p *pair) killInSecondStep(t *testing.T) {
	t.Helper()
	exe := value(os.Executable())(t)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), victimDSN+"="+p.goDSN, victimDriver+"="+p.driver, victimDialect+"="+string(p.dialect))
	errors := &tail{}
	cmd.Stderr = errors
	stdout := value(cmd.StdoutPipe())(t)
	must(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	_ = cmd.Process.Kill() // SIGKILL
	_ = cmd.Wait()
	if err != nil || line != "in the second step\n" {
		t.Fatalf("the process that is to be killed says %q, %v\n%s", line, err, errors)
	}
}
