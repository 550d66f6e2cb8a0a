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

// Redacted stands in texts where a secret was.
const Redacted = "[redacted]"

// Secrets are texts that must not be seen. Nil hides nothing but what errors of connecting hold.
type Secrets []string

// namesSecret matches the name of an option that holds a secret, of this library or of any driver,
// up to its value. sslkey and passfile name files, and are none.
var namesSecret = regexp.MustCompile(`(?i)[a-z_]*(?:password|passwd|passphrase|_pass|token|secret|hexkey|textkey|_key|\bkey|\bpass|\bpwd)[a-z_]*\s*=\s*`)

// pragmaKey matches the PRAGMA of a key in the DSN of a driver that takes PRAGMAs there.
var pragmaKey = regexp.MustCompile(`(?i)key\s*\(\s*['"]?([^'")&]+)`)

// privateKey matches a private key in PEM form, as a driver quotes the text of sslkey, to its end
// or that of the text.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN(?:[ +]|%20)(?:[A-Z0-9]+(?:[ +]|%20))*PRIVATE(?:[ +]|%20)KEY-----.*?(?:-----END[ +%0-9A-Z]*-----|$)`)

// SecretsOf finds the encryption key and the passwords of a DSN, and the forms
// in which they may come back. It looks for their names in the text alone, since a
// DSN that cannot be taken apart must not show them either.
func SecretsOf(dsn, key string) Secrets {
	var hide Secrets
	hide.add(key)
	hide.addNamed(dsn)
	if decoded, err := url.QueryUnescape(dsn); err == nil && decoded != dsn {
		hide.addNamed(decoded)
	}
	_, query, _ := strings.Cut(dsn, "?")
	for piece := range strings.SplitSeq(query, "&") {
		if o, err := parseOption(piece); err == nil && namesSecret.MatchString(o.name+"=") {
			hide.add(o.value)
			_, written, _ := strings.Cut(piece, "=")
			hide.addWritten(written)
		}
	}
	if _, rest, found := strings.Cut(dsn, "://"); found {
		u, _ := splitURL(rest)
		hide.addPassword(u)
	}
	// A longer one first: it may contain a shorter one.
	slices.SortFunc(hide, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(hide)
}

// addNamed adds what stands in a text behind the name of a secret, wherever that is.
func (s *Secrets) addNamed(text string) {
	for _, at := range namesSecret.FindAllStringIndex(text, -1) {
		value, _, _ := strings.Cut(text[at[1]:], "&")
		s.add(value)
		s.add(value[:len(value)-len(strings.TrimLeftFunc(value, isWordRune))]) // whatever ends it, if the DSN has it in a wrong place
		s.add(keywordValue(value))
	}
	for _, found := range pragmaKey.FindAllStringSubmatch(text, -1) {
		s.add(found[1])
		s.add(found[0]) // percent-encoded, what stands before a short one looks like a part of it
	}
}

// keywordValue returns the value at the beginning of a text as key=value has it: quoted, or up to a
// space.
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

// addText adds a text as it is, in quotes, and in either case.
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

// addPassword adds the password of a URL. One that is the user's, host's or
// database's name as well is hidden only where it stands as a password: a
// message without these names would be of no use.
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

// addWritten adds a password as it stands in the DSN if that is a way to write
// it which add does not think of: anything may be percent-encoded.
func (s *Secrets) addWritten(password string) {
	if strings.Contains(password, "%") {
		s.addText(password)
	}
}

// addInPlace adds a password to be hidden where a DSN has one.
func (s *Secrets) addInPlace(password string) {
	*s = append(*s, ":"+password+"@", "password="+password)
}

// Hide returns text without the secrets. A short one is looked for as a word
// only, or a password of one letter would be seen by what is missing.
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

// joins reports whether one word goes from the end of a into b.
func joins(a, b string) bool {
	last, _ := utf8.DecodeLastRuneInString(a)
	first, _ := utf8.DecodeRuneInString(b)
	return a != "" && b != "" && isWordRune(last) && isWordRune(first)
}

func isWordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// Redact returns err, or an error without secrets if one shows in the text of err or may stand
// elsewhere in it.
func (s Secrets) Redact(err error) error {
	if err == nil || s.Hide(err.Error()) == err.Error() && !holdsDSN(err) {
		return err
	}
	return s.cut(err)
}

// holders are the types of errors that hold a DSN, or what was read from one: pgx's and net/url's.
var holders = []string{"*pgconn.ConnectError", "*pgconn.ParseConfigError", "*pgconn.connectError", "*pgconn.parseConfigError", "*url.Error"}

// holdsDSN reports whether an error, or one that it wraps, holds a DSN.
func holdsDSN(err error) (holds bool) {
	foreign.Walk(err, func(err error) {
		holds = holds || err != nil && slices.Contains(holders, reflect.TypeOf(err).String())
	})
	return holds
}

// cut returns an error that stands for one of a driver that connects, of which
// nobody knows what it holds. An error that is a text and nothing else stays.
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

// panics takes the secrets out of what a driver panics with. It is to be deferred.
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

// A redactedError stands for an error that may hold a secret. It cannot be
// unwrapped, since what it was made from would show that.
type redactedError struct {
	text    string
	state   string
	is      func(error) bool
	network *net.OpError // without what it wraps; nil: it is no error of the network
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return e.is(target) }
func (e *redactedError) SQLState() string     { return e.state }

// As finds the error of the network. [errors.As] asks it.
func (e *redactedError) As(target any) bool {
	found, ok := target.(**net.OpError)
	if ok && e.network != nil {
		*found = e.network
	}
	return ok && e.network != nil
}
