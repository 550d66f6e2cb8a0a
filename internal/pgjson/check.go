package pgjson

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxDepth = 1000 // of nesting: SQLite's limit is the lowest

	// PostgreSQL's numeric, and so its JSONB, holds numbers within these bounds.
	maxIntegerDigits  = 131072
	maxFractionDigits = 16383
	maxExponent       = 1_000_000_000

	// PostgreSQL returns numbers without exponents. Many short numbers could make a text that can
	// be stored but is too large to be read.
	maxWrittenOut = 1 << 20 // bytes more
)

// Check returns an error if PostgreSQL's JSONB or SQLite's JSON cannot hold a valid JSON text.
// JSONB holds no U+0000, no lone surrogates and no huge numbers. SQLite limits the nesting.
func Check(raw []byte) error {
	_, err := Depth(raw)
	return err
}

// Depth checks a valid JSON text as [Check] does, and returns how deep it is nested. A scalar has
// depth 0.
func Depth(raw []byte) (deepest int, err error) {
	if !utf8.Valid(raw) {
		return 0, errors.New("invalid UTF-8")
	}
	depth, writtenOut := 0, 0
	for i := 0; i < len(raw); {
		n, longer := 1, 0
		switch c := raw[i]; {
		case c == '"':
			n, err = checkString(raw[i:])
		case c == '-' || '0' <= c && c <= '9':
			n, longer, err = checkNumberIn(raw[i:])
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
		writtenOut += longer
		switch {
		case err != nil:
			return 0, err
		case writtenOut > maxWrittenOut:
			return 0, fmt.Errorf("numbers written out without exponents are more than %d bytes longer", maxWrittenOut)
		case depth > maxDepth:
			return 0, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		i += n
	}
	return deepest, nil
}

// checkNumberIn checks the number that raw begins with and returns its length, and how much longer
// it is written out.
func checkNumberIn(raw []byte) (n, longer int, err error) {
	exponent := false
	for n < len(raw) && isNumeric(raw[n]) {
		exponent = exponent || raw[n]|0x20 == 'e'
		n++
	}
	if !exponent && n <= maxFractionDigits {
		return n, 0, nil // any is in range
	}
	longer, err = checkNumber(string(raw[:n]))
	return n, longer, err
}

func isNumeric(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+' || c|0x20 == 'e'
}

// checkString checks the string literal that raw begins with and returns its length.
func checkString(raw []byte) (int, error) {
	for i := 1; ; {
		switch {
		case raw[i] == '"':
			return i + 1, nil
		case raw[i] != '\\':
			i++
		case raw[i+1] != 'u':
			i += 2
		default:
			switch r := escaped(raw[i:]); {
			case r == 0:
				return 0, errors.New(`\u0000 in a string`)
			case 0xD800 <= r && r < 0xDC00:
				if low := escaped(raw[i+6:]); low < 0xDC00 || low > 0xDFFF {
					return 0, errors.New("lone surrogate in a string")
				}
				i += 12
			case 0xDC00 <= r && r < 0xE000:
				return 0, errors.New("lone surrogate in a string")
			default:
				i += 6
			}
		}
	}
}

// escaped returns the code unit of the \u escape that raw begins with, or -1.
func escaped(raw []byte) int {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// checkNumber reports whether PostgreSQL's numeric can hold a number, and
// returns how many characters longer it is there, written out without an exponent.
func checkNumber(literal string) (longer int, err error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(literal, "-")), "e")
	exp := 0
	if exponent != "" {
		exp, err = strconv.Atoi(exponent)
	}
	integer, fraction, _ := strings.Cut(mantissa, ".")
	whole := 0 // digits before the point
	if significant := strings.TrimLeft(integer+fraction, "0"); significant != "" {
		whole = len(significant) - len(fraction) + exp
	}
	scale := max(0, len(fraction)-exp) // digits after it
	if err != nil || max(exp, -exp) > maxExponent || whole > maxIntegerDigits || scale > maxFractionDigits {
		return 0, fmt.Errorf("number %.40s is out of range", literal)
	}
	return max(0, max(1, whole)+scale-len(literal)), nil
}
