// Package pgjson checks whether every database can hold a JSON text or a Go value, and writes JSON
// texts as PostgreSQL's JSONB returns them.
package pgjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"unicode/utf8"
)

// ValidUTF8 reports whether all text that encoding/json writes for v is valid UTF-8 in v. Some
// versions of that package replace invalid UTF-8 by the character U+FFFD and some by its escape, so
// the written text does not show it. The value v must be one that encoding/json can write.
//
// ValidUTF8 calls the MarshalJSON and MarshalText methods of values in v. It takes text that
// MarshalJSON returns as it is.
func ValidUTF8(v any) bool { return valid(reflect.ValueOf(v)) }

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func valid(v reflect.Value) bool {
	if !v.IsValid() {
		return true // a nil interface
	}
	if text, ok := marshaled(v); ok {
		return utf8.Valid(text)
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Interface, reflect.Pointer:
		return valid(v.Elem())
	case reflect.Struct:
		return validFields(v)
	case reflect.Map:
		return validEntries(v)
	case reflect.Slice, reflect.Array:
		return validElements(v)
	}
	return true
}

// marshaled returns the text that a method of v makes of it, if v has such a method.
func marshaled(v reflect.Value) (text []byte, ok bool) {
	if v.Kind() == reflect.Pointer && v.IsNil() || !v.CanInterface() {
		return nil, false
	}
	for _, m := range []reflect.Type{jsonMarshaler, textMarshaler} {
		on := v
		if !v.Type().Implements(m) && v.CanAddr() && reflect.PointerTo(v.Type()).Implements(m) {
			on = v.Addr()
		}
		if !on.Type().Implements(m) {
			continue
		}
		var err error
		if m == jsonMarshaler {
			text, err = on.Interface().(json.Marshaler).MarshalJSON()
		} else {
			text, err = on.Interface().(encoding.TextMarshaler).MarshalText()
		}
		return text, err == nil
	}
	return nil, false
}

func validFields(v reflect.Value) bool {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() && !field.Anonymous || field.Tag.Get("json") == "-" {
			continue
		}
		if !valid(v.Field(i)) {
			return false
		}
	}
	return true
}

func validEntries(v reflect.Value) bool {
	for entries := v.MapRange(); entries.Next(); {
		if !valid(entries.Key()) || !valid(entries.Value()) {
			return false
		}
	}
	return true
}

func validElements(v reflect.Value) bool {
	if v.Type().Elem() == reflect.TypeFor[byte]() {
		return true // written in base64, or as numbers
	}
	for i := range v.Len() {
		if !valid(v.Index(i)) {
			return false
		}
	}
	return true
}
