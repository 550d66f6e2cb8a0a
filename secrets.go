package pgqrs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// Format prints the Config as [fmt] would, without the encryption key.
func (c Config) Format(f fmt.State, verb rune) {
	type plain Config // has no Format
	if c.EncryptionKey != "" {
		c.EncryptionKey = redacted
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), plain(c))
}

// LogValue implements [slog.LogValuer]. It leaves the encryption key out.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", c)) }

// secrets takes what must not be seen out of texts. A nil one changes nothing.
type secrets []string

// secretsOf finds the encryption key and the passwords of a DSN, and the forms
// in which they may come back. It looks for the key by its text alone, since a
// DSN that cannot be taken apart must not show it either.
func secretsOf(dsn, key string) secrets {
	var hide secrets
	hide.add(key)
	for i, rest := range strings.Split(dsn, "encryption_key=") {
		if i > 0 {
			value, _, _ := strings.Cut(rest, "&")
			hide.add(value)
			hide.add(value[:len(value)-len(strings.TrimLeftFunc(value, isWordRune))]) // whatever ends it, if the DSN has it in a wrong place
		}
	}
	_, query, _ := strings.Cut(dsn, "?")
	for piece := range strings.SplitSeq(query, "&") {
		if o, err := parseOption(piece); err == nil && (o.name == "encryption_key" || strings.Contains(o.name, "password")) {
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

func (s *secrets) add(secret string) {
	decoded, err := url.QueryUnescape(secret)
	if err != nil {
		decoded = secret
	}
	for _, text := range []string{secret, decoded, url.QueryEscape(decoded), url.PathEscape(decoded)} {
		s.addText(text)
	}
}

// addText adds a text as it is, in quotes, and in either case.
func (s *secrets) addText(text string) {
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
func (s *secrets) addPassword(u pgURL) {
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
func (s *secrets) addWritten(password string) {
	if strings.Contains(password, "%") {
		s.addText(password)
	}
}

// addInPlace adds a password to be hidden where a DSN has one.
func (s *secrets) addInPlace(password string) {
	*s = append(*s, ":"+password+"@", "password="+password)
}

// in returns text without the secrets. A short one is looked for as a word
// only, or a password of one letter would be seen by what is missing.
func (s secrets) in(text string) string {
	for _, secret := range s {
		var b strings.Builder
		for {
			before, after, found := strings.Cut(text, secret)
			b.WriteString(before)
			if !found {
				break
			}
			if len(secret) >= 8 || !joins(before, secret) && !joins(secret, after) {
				b.WriteString(redacted)
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

// from returns err, or, if a secret shows in it, an error that has none.
func (s secrets) from(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	shown := s.in(text)
	if shown == text {
		return err
	}
	return &redactedError{shown, sqlState(err), func(target error) bool { return errors.Is(err, target) }}
}

// A redactedError stands for an error with a secret in its text. It cannot be
// unwrapped, since what it was made from would show that.
type redactedError struct {
	text  string
	state string
	is    func(error) bool
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return e.is(target) }
func (e *redactedError) SQLState() string     { return e.state }
