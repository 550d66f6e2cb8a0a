package main

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// secretVariables are variables of lib/pq that hold a password or name a file with one.
var secretVariables = []string{"PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "PGSSLKEY", "PGSSLPASSWORD"}

// keptVariables are variables that a command cannot do without. They name folders.
var keptVariables = []string{"PATH", "HOME"}

// withoutSecrets returns an environment without the variables that open the database. PGQRS_ and
// all variables that begin so belong to this program. It keeps the keptVariables, and also returns
// the names of those that contain the DSN or its password.
func withoutSecrets(environment []string, dsn string) (cleaned, revealing []string) {
	secrets := append(secretsOf(dsn), secretsIn(environment)...)
	reveals := func(value string) bool {
		return strings.Contains(value, dsn) || slices.ContainsFunc(secrets, func(s secret) bool { return s.in(value) })
	}
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		upper := strings.ToUpper(name) // Windows ignores their case
		switch {
		case strings.HasPrefix(upper, "PGQRS_"), slices.Contains(secretVariables, upper):
			continue
		case !reveals(value):
		case slices.Contains(keptVariables, upper):
			revealing = append(revealing, name)
		default:
			continue
		}
		cleaned = append(cleaned, entry)
	}
	return cleaned, revealing
}

// passwordVariables are the secretVariables that hold a password.
var passwordVariables = []string{"PGPASSWORD", "PGSSLPASSWORD"}

// secretsIn returns the passwords that the driver takes from an environment.
func secretsIn(environment []string) []secret {
	var found []secret
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		if slices.Contains(passwordVariables, strings.ToUpper(name)) {
			found = append(found, formsOf(value, len(value) < shortSecret)...)
		}
	}
	return found
}

// A secret is a password or a key of a DSN.
type secret struct {
	text   string
	common bool // the text may also be a common word
}

const shortSecret = 8 // bytes of a secret that is not common

// options finds the passwords and keys among the options of a DSN.
var options = regexp.MustCompile(`(?i)[?&][^=&]*(?:password|encryption_key)=([^&]*)`)

// secretsOf returns the passwords and keys of a DSN, as they are and as a DSN may write them.
func secretsOf(dsn string) []secret {
	var written, names []string
	if _, rest, found := strings.Cut(dsn, "://"); found {
		authority, path := rest, ""
		if end := strings.IndexAny(rest, "/?"); end >= 0 {
			authority, path = rest[:end], strings.Trim(rest[end:], "/")
		}
		at := strings.LastIndexByte(authority, '@')
		user, password, _ := strings.Cut(authority[:max(at, 0)], ":")
		host, _, _ := strings.Cut(authority[at+1:], ":")
		database, _, _ := strings.Cut(path, "?")
		written, names = append(written, password), []string{user, host, database}
	}
	for _, option := range options.FindAllStringSubmatch(dsn, -1) {
		written = append(written, option[1])
	}
	var found []secret
	for _, text := range written {
		plain, err := url.PathUnescape(text)
		if err != nil {
			plain = text
		}
		common := len(plain) < shortSecret || slices.Contains(names, plain)
		found = append(found, formsOf(plain, common)...)
		if text != "" {
			found = append(found, secret{text, common})
		}
	}
	return found
}

// formsOf returns a password as it is and as a DSN may write it.
func formsOf(plain string, common bool) []secret {
	if plain == "" {
		return nil
	}
	return []secret{{plain, common}, {url.PathEscape(plain), common}, {url.QueryEscape(plain), common}}
}

// in reports whether a value contains the secret. A common secret must be the whole value, or stand
// at the place of a password in a DSN.
func (s secret) in(value string) bool {
	if !s.common {
		// %2f is the same as %2F
		return strings.Contains(strings.ToLower(value), strings.ToLower(s.text))
	}
	return value == s.text || strings.Contains(value, ":"+s.text+"@") || strings.Contains(value, "password="+s.text)
}
