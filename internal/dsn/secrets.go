package dsn

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// Redacted replaces a secret in a text.
const Redacted = "[redacted]"

// Secrets are texts that must not be shown. Nil hides only the contents of errors of connecting.
type Secrets []string

// namesSecret matches the name of an option that holds a secret, of this library or of any driver,
// up to its value. It also matches misspelled names, such as encryptionkey.
var namesSecret = regexp.MustCompile(`(?i)[a-z_]*(?:password|passwd|passphrase|_pass|token|secret|key|\bpass|\bpwd)[a-z_]*\s*=\s*`)

// namesFile matches the names of options that namesSecret matches too, and whose values name files.
var namesFile = regexp.MustCompile(`(?i)^(?:sslkey|passfile)\s*=`)

// keyInPath matches the name of an option with a secret that is at a wrong place in a path.
var keyInPath = regexp.MustCompile(`(?i)encryption_?key\s*=|[;&][a-z_]*(?:key|password)\s*=`)

// pragmaKey matches the PRAGMA of a key in the DSN of a driver that accepts PRAGMAs there.
var pragmaKey = regexp.MustCompile(`(?i)key\s*\(\s*['"]?([^'")&]+)`)

// privateKey matches a private key in PEM form, as a driver quotes the text of sslkey. It matches
// to the end of the key or of the text.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN(?:[ +]|%20)(?:[A-Z0-9]+(?:[ +]|%20))*PRIVATE(?:[ +]|%20)KEY-----.*?(?:-----END[ +%0-9A-Z]*-----|$)`)

// SecretsOf returns the encryption key and the passwords of a DSN, in all forms in which they may
// appear. It searches the text for their names, because a malformed DSN must not show them either.
func SecretsOf(dsn, key string) Secrets {
	var hide Secrets
	hide.add(key)
	hide.addNamed(dsn)
	if decoded, err := url.QueryUnescape(dsn); err == nil && decoded != dsn {
		hide.addNamed(decoded)
	}
	_, query, _ := strings.Cut(dsn, "?")
	for piece := range strings.SplitSeq(query, "&") {
		if o, err := parseOption(piece); err == nil && namesSecret.MatchString(o.name+"=") && !namesFile.MatchString(o.name+"=") {
			hide.add(o.value)
			_, written, _ := strings.Cut(piece, "=")
			hide.addWritten(written)
		}
	}
	if rest, found := urlIn(dsn); found {
		u, ok := splitURL(rest)
		hide.addPassword(u)
		if !ok {
			hide.addMalformed(rest)
		}
	}
	// A longer secret comes first, because it may contain a shorter one.
	slices.SortFunc(hide, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(hide)
}

// urlIn returns the rest of a URL behind its scheme. The slashes of PostgreSQL's may be missing.
func urlIn(dsn string) (rest string, found bool) {
	if _, rest, found = strings.Cut(dsn, "://"); found {
		return rest, true
	}
	scheme, rest, found := strings.Cut(dsn, ":")
	return strings.TrimLeft(rest, "/"), found && schemes[strings.ToLower(scheme)] == Postgres
}

// addMalformed adds what may be the password in a URL that splitURL does not understand.
func (s *Secrets) addMalformed(rest string) {
	_, password, _ := strings.Cut(rest, ":")
	end := strings.LastIndexByte(password, '@')
	if end < 0 {
		end = strings.IndexAny(password+"/", "/?")
	}
	s.add(password[:end])
}

// addNamed adds the values of all secrets that a text names.
func (s *Secrets) addNamed(text string) {
	for _, at := range namesSecret.FindAllStringIndex(text, -1) {
		if namesFile.MatchString(text[at[0]:at[1]]) {
			continue
		}
		value, _, _ := strings.Cut(text[at[1]:], "&")
		s.add(value)
		// The value may end at any other character if it is in a wrong place of the DSN.
		s.add(value[:len(value)-len(strings.TrimLeftFunc(value, isWordRune))])
		s.add(keywordValue(value))
	}
	for _, found := range pragmaKey.FindAllStringSubmatch(text, -1) {
		s.add(found[1])
		// If it is percent-encoded, the text before a short value looks like a part of the value.
		s.add(found[0])
	}
}

// keywordValue returns the value at the beginning of a text in key=value form. It is quoted, or
// ends at a space.
func keywordValue(text string) string {
	if quoted, ok := strings.CutPrefix(text, "'"); ok {
		text, _, _ = strings.Cut(quoted, "'")
		return text
	}
	text, _, _ = strings.Cut(text, " ")
	return text
}

func (s *Secrets) add(secret string) {
	decoded, err := url.QueryUnescape(secret)
	if err != nil {
		decoded = secret
	}
	for _, text := range []string{secret, decoded, url.QueryEscape(decoded), url.PathEscape(decoded)} {
		s.addText(text)
	}
}

// addText adds a text as it is, in quotes, and in upper and lower case.
func (s *Secrets) addText(text string) {
	quoted := strconv.Quote(text)
	for _, form := range []string{text, quoted[1 : len(quoted)-1], strings.ToLower(text), strings.ToUpper(text)} {
		switch {
		case form == "":
		case len(form) < 8 && !strings.ContainsFunc(form, isWordRune):
			s.addInPlace(form) // it is in every text
		default:
			*s = append(*s, form)
		}
	}
}

// addPassword adds the password of a URL. If the password is also the name of the user, host or
// database, it is hidden only where a password stands. A message without these names would be of no
// use.
func (s *Secrets) addPassword(u pgURL) {
	s.addWritten(u.written)
	switch u.password {
	case "":
	case u.user, u.host, u.database:
		s.addInPlace(u.password)
	default:
		s.add(u.password)
	}
}

// addWritten adds a password as it is written in the DSN, if add does not produce this form. Any
// character may be percent-encoded.
func (s *Secrets) addWritten(password string) {
	if strings.Contains(password, "%") {
		s.addText(password)
	}
}

// addInPlace adds a password that is hidden only where a DSN has its password.
func (s *Secrets) addInPlace(password string) {
	*s = append(*s, ":"+password+"@", "password="+password)
}

// Hide returns text without the secrets. It looks for a short secret only as a word. Otherwise the
// gaps in the text would reveal a password of one letter.
func (s Secrets) Hide(text string) string {
	text = privateKey.ReplaceAllString(text, Redacted)
	for _, secret := range s {
		var b strings.Builder
		for {
			before, after, found := strings.Cut(text, secret)
			b.WriteString(before)
			if !found {
				break
			}
			if len(secret) >= 8 || !joins(before, secret) && !joins(secret, after) {
				b.WriteString(Redacted)
			} else {
				b.WriteString(secret)
			}
			text = after
		}
		text = b.String()
	}
	return text
}

// joins reports whether a word extends from the end of a into b.
func joins(a, b string) bool {
	last, _ := utf8.DecodeLastRuneInString(a)
	first, _ := utf8.DecodeRuneInString(b)
	return a != "" && b != "" && isWordRune(last) && isWordRune(first)
}

func isWordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// Redact returns err if it shows no secret. Otherwise, or if err may hold a secret elsewhere, it
// returns an error without secrets.
func (s Secrets) Redact(err error) error {
	if err == nil || s.Hide(err.Error()) == err.Error() && !holdsDSN(err) {
		return err
	}
	return s.cut(err)
}

// holders are the types of errors that hold a DSN or parts of one: pgx's and net/url's.
var holders = []string{"*pgconn.ConnectError", "*pgconn.ParseConfigError", "*pgconn.connectError", "*pgconn.parseConfigError", "*url.Error"}

// holdsDSN reports whether an error, or one that it wraps, holds a DSN.
func holdsDSN(err error) (holds bool) {
	foreign.Walk(err, func(err error) {
		holds = holds || err != nil && slices.Contains(holders, reflect.TypeOf(err).String())
	})
	return holds
}

// cut returns a replacement for a driver's error of connecting, which may hold anything. An error
// that is nothing but a text stays.
func (s Secrets) cut(err error) error {
	if err == nil || foreign.Plain(err) && s.Hide(err.Error()) == err.Error() {
		return err
	}
	e := &redactedError{text: s.Hide(err.Error()), state: sqlerr.State(err), is: func(target error) bool { return errors.Is(err, target) }}
	var network *net.OpError
	if errors.As(err, &network) {
		e.network = &net.OpError{Op: network.Op, Net: network.Net, Source: network.Source, Addr: network.Addr}
		if cause := network.Err; cause != nil {
			e.network.Err = &redactedError{text: s.Hide(cause.Error()), is: func(target error) bool { return errors.Is(cause, target) }}
		}
	}
	return e
}

// panics removes the secrets from a driver's panic. It must be deferred.
func (s Secrets) panics() {
	v := recover()
	if v == nil {
		return
	}
	if text := fmt.Sprint(v); s.Hide(text) != text {
		v = s.Hide(text)
	}
	panic(v)
}

// A redactedError replaces an error that may hold a secret. It has no Unwrap, because the original
// error would show the secret.
type redactedError struct {
	text    string
	state   string
	is      func(error) bool
	network *net.OpError // the error of the network without what it wraps, or nil
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return e.is(target) }
func (e *redactedError) SQLState() string     { return e.state }

// As finds the error of the network. [errors.As] calls it.
func (e *redactedError) As(target any) bool {
	found, ok := target.(**net.OpError)
	if ok && e.network != nil {
		*found = e.network
	}
	return ok && e.network != nil
}
