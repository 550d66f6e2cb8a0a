package dsn

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// Postgres tests DSNs of PostgreSQL. The argument is a URL with parameters, of a database in which
// schemas may be created.
func Postgres(t *testing.T, good string) {
	t.Run("good DSNs open", func(t *testing.T) {
		for _, dsn := range []string{good, strings.Replace(good, "postgres://", "postgresql://", 1), good + "&application_name=a%20b"} {
			s := Open(t, pgqrs.Config{}, dsn)
			install(t, s)
			if strings.Contains(dsn, "application_name") {
				wantAnswer(t, s, "SHOW application_name", "a b")
			}
		}
		work(t, Open(t, pgqrs.Config{}, good))
	})
	t.Run("schema is ours, wherever it stands", func(t *testing.T) {
		s := Open(t, pgqrs.Config{}, strings.Replace(good, "?", "?schema=dsn_one&", 1))
		install(t, s)
		same := Open(t, pgqrs.Config{Schema: "dsn_one"}, good+"&schema=dsn_one")
		if r, err := same.Verify(t.Context()); err != nil || !r.OK() {
			t.Errorf("%+v, %v", r, err)
		}
		t.Cleanup(func() {
			if _, err := s.DB().ExecContext(context.Background(), "DROP SCHEMA dsn_one CASCADE"); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("bad DSNs are refused", func(t *testing.T) { badURLs(t, good) })
	t.Run("a server that does not answer holds Open up as long as its ctx lasts", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = pgqrs.Open(ctx, "postgres://ada:hunter2@"+listener.Addr().String()+"/db?sslmode=disable")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v; want one matching context.DeadlineExceeded", err)
		}
	})
}

func badURLs(t *testing.T, good string) {
	for _, c := range []struct {
		dsn         string
		config      pgqrs.Config
		unsupported bool
		want        string
	}{
		{good + "&schema=a&schema=a", pgqrs.Config{}, true, `option "schema" is given twice`},
		{good + "&schema=a", pgqrs.Config{Schema: "b"}, true, "the option schema and Config.Schema disagree"},
		{good + "&schema=a-b", pgqrs.Config{}, true, `"a-b" is not a plain identifier`},
		{good + "&vfs=memory", pgqrs.Config{}, true, `option "vfs" is not one of PostgreSQL`},
		{good + "&encryption_key=hunter2", pgqrs.Config{}, true, `option "encryption_key" is not one of PostgreSQL`},
		{good + "&mvcc=1", pgqrs.Config{}, true, `option "mvcc" is not one of PostgreSQL`},
		{good, pgqrs.Config{Concurrent: true}, true, "postgres has no BEGIN CONCURRENT"},
		{good, pgqrs.Config{EncryptionKey: "hunter2"}, true, "Config.EncryptionKey is not for PostgreSQL"},
		{good + "&no_such_parameter=1", pgqrs.Config{}, false, "no_such_parameter"},
		{good + "&application_name=%zz", pgqrs.Config{}, true, `malformed percent-encoding in the value of the option "application_name"`},
		{"postgres://ada:hunter2@127.0.0.1:1/db?sslmode=disable", pgqrs.Config{}, false, "127.0.0.1:1"},
		{"postgres://ada@127.0.0.1:1/db?sslmode=disable&password=hunter2", pgqrs.Config{}, false, "127.0.0.1:1"},
		{"postgres://ada:hunter2@127.0.0.1:99999999/db?sslmode=sometimes", pgqrs.Config{}, false, `pgqrs: open postgres "127.0.0.1:99999999/db": `},
		{"postgres://ada:hunter2@127.0.0.1:1/db?sslmode=sometimes&password=hunter2", pgqrs.Config{}, false, "sslmode"},
		{"postgres://ada:hun%zzter2@127.0.0.1:1/db", pgqrs.Config{}, true, "not a valid URL"},
		{"postgres://ada:12/hunter2@127.0.0.1:1/db", pgqrs.Config{}, true, "not a valid URL"},
		{"postgres://ada:hunter2", pgqrs.Config{}, true, "not a valid URL"},
		{"postgres:db", pgqrs.Config{}, true, "not of the form postgres://user:password@host/database"},
		{"host=127.0.0.1 password=hunter2", pgqrs.Config{}, true, "no scheme"},
	} {
		s, err := c.config.Open(t.Context(), c.dsn)
		if err == nil {
			t.Errorf("%s was opened (%v)", c.dsn, s.Close())
			continue
		}
		if errors.Is(err, pgqrs.ErrUnsupported) != c.unsupported || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v; want one that says %q, matching ErrUnsupported: %v", c.dsn, err, c.want, c.unsupported)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password shows in %v", err)
		}
	}
}
