package dsn

import (
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

const password = "correct-horse-battery"

// NoSecrets opens DSNs that cannot be opened, and searches everything that the errors reach for
// their passwords. Each of as is a pointer for errors.As to a type of the driver's errors. The URL
// is that of a working server.
func NoSecrets(t *testing.T, good string, as ...any) {
	u := "postgres://ada:" + password + "@"
	for _, dsn := range []string{
		u + "127.0.0.1:1/db?sslmode=disable", u + "127.0.0.1:1/db?sslmode=sometimes", u + "127.0.0.1:1/db?connect_timeout=x", u + "no.such.host.invalid/db",
		u + "127.0.0.1:99999999/db", u + "[::1/db", u + "h:" + password + "/db", u + "127.0.0.1:1/db?sslrootcert=/no/such/file&sslmode=verify-full",
		"postgres://127.0.0.1:1/db?sslmode=disable&password=" + password, "postgres://127.0.0.1:1/db?sslpassword=" + password,
	} {
		noSecret(t, dsn, password, as...)
	}
	wrong, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	query := wrong.Query()
	query.Set("dbname", "no_such_database")
	query.Set("password", password)
	wrong.RawQuery = query.Encode()
	err = noSecret(t, wrong.String(), password, as...)
	var coded interface{ SQLState() string }
	if !errors.As(err, &coded) || coded.SQLState() != "3D000" {
		t.Errorf("the error of a database that is not there has lost its code: %v", err)
	}
	err = noSecret(t, u+"127.0.0.1:1/db?sslmode=disable", password, as...)
	if network := (*net.OpError)(nil); !errors.As(err, &network) || network.Op != "dial" {
		t.Errorf("the error of a server that is not there is none of the network: %v", err)
	}
}

// NoSecretsInFiles is like NoSecrets, for a driver for files.
func (d Driver) NoSecretsInFiles(t *testing.T, as ...any) {
	missing := d.Scheme + ":" + filepath.Join(t.TempDir(), "no", "such", "q.db")
	for _, query := range []string{
		"?_key=KEY", "?_auth&_auth_user=ada&_auth_pass=KEY", "?authToken=KEY", "?hexkey=KEY", "?_pragma=hexkey('KEY')", "&_pragma=key(KEY)", "&_auth_pass=KEY",
	} {
		noSecret(t, missing+strings.Replace(query, "KEY", password, 1), password, as...)
	}
	for cipher, size := range d.Ciphers {
		key := strings.Repeat("c3", size)
		noSecret(t, missing+"?encryption_key="+key+"&cipher="+cipher, key, as...)
		plain := d.Scheme + ":" + filepath.Join(t.TempDir(), "plain.db")
		install(t, Open(t, pgqrs.Config{}, plain))
		noSecret(t, plain+"?encryption_key="+key+"&cipher="+cipher, key, as...)
	}
}

func noSecret(t *testing.T, dsn, secret string, as ...any) error {
	t.Helper()
	s, err := pgqrs.Open(t.Context(), dsn)
	if err == nil {
		t.Errorf("%s was opened (%v)", dsn, s.Close())
		return nil
	}
	if where := testkit.Secret(err, secret, as...); where != "" {
		t.Errorf("%s: the secret stands in %s: %v", dsn, where, err)
	}
	return err
}
