package testkit

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Secret returns where an error shows a secret, or "" if it shows it nowhere. It searches:
//
//   - the error's text and the texts that fmt prints for it
//   - the errors that it wraps
//   - the errors that errors.As finds for the pointers in as
//   - every value that can be reached from one of these
//
// Case does not matter.
func Secret(err error, secret string, as ...any) string {
	if err == nil {
		return ""
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		if shows(fmt.Sprintf(verb, err), secret) {
			return fmt.Sprintf("%T by %s", err, verb)
		}
	}
	w := walk{strings.ToLower(secret), map[any]bool{}}
	if where := w.find(reflect.ValueOf(err), 0); where != "" {
		return fmt.Sprintf("%T%s", err, where)
	}
	for _, target := range as {
		if !errors.As(err, target) {
			continue
		}
		if where := w.find(reflect.ValueOf(target), 0); where != "" {
			return fmt.Sprintf("what errors.As finds as %T%s", target, where)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Secret(e.Unwrap(), secret, as...)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if where := Secret(inner, secret, as...); where != "" {
				return where
			}
		}
	}
	return ""
}

func shows(text, secret string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(secret))
}

// A walk looks for a secret in everything that a value holds, unexported fields too.
type walk struct {
	secret string
	seen   map[any]bool
}

func (w walk) find(v reflect.Value, depth int) string {
	if depth > 30 {
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		if shows(v.String(), w.secret) {
			return " = a text"
		}
	case reflect.Interface:
		return w.find(v.Elem(), depth+1)
	case reflect.Pointer:
		at := [2]any{v.Pointer(), v.Type()}
		if v.IsNil() || w.seen[at] {
			return ""
		}
		w.seen[at] = true
		return w.find(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if where := w.find(v.Field(i), depth+1); where != "" {
				return "." + v.Type().Field(i).Name + where
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if where := w.find(key, depth+1) + w.find(v.MapIndex(key), depth+1); where != "" {
				return "[...]" + where
			}
		}
	case reflect.Slice, reflect.Array:
		return w.items(v, depth)
	}
	return ""
}

func (w walk) items(v reflect.Value, depth int) string {
	if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice && shows(string(v.Bytes()), w.secret) {
		return " = bytes"
	}
	for i := range v.Len() {
		if where := w.find(v.Index(i), depth+1); where != "" {
			return "[...]" + where
		}
	}
	return ""
}
