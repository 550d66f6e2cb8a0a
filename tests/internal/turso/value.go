package turso

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// A value is a [driver.Value] in JSON: null, a string, or an object that names its type, so that
// integers are exact and reals stay reals.
type value struct{ any }

type wireValue struct {
	Integer *string `json:"i,omitempty"`
	Real    *string `json:"f,omitempty"`
	Blob    []byte  `json:"b,omitzero"`
}

// MarshalJSON implements [json.Marshaler].
func (v value) MarshalJSON() ([]byte, error) {
	var wire any
	switch x := v.any.(type) {
	case nil:
	case string:
		if !utf8.ValidString(x) {
			return nil, fmt.Errorf("turso: the string %q is not UTF-8", x)
		}
		wire = x
	case []byte:
		if x == nil {
			break
		}
		wire = wireValue{Blob: x}
	case bool:
		n := "0"
		if x {
			n = "1"
		}
		wire = wireValue{Integer: &n}
	case int64:
		n := strconv.FormatInt(x, 10)
		wire = wireValue{Integer: &n}
	case float64:
		f := strconv.FormatFloat(x, 'g', -1, 64)
		if math.IsInf(x, 0) {
			f = fmt.Sprintf("%sInfinity", f[:1])
		}
		wire = wireValue{Real: &f}
	case time.Time:
		wire = x.Format(time.RFC3339Nano)
	default:
		return nil, fmt.Errorf("turso: a %T cannot be bound", x)
	}
	return json.Marshal(wire)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (v *value) UnmarshalJSON(text []byte) (err error) {
	if !bytes.HasPrefix(text, []byte("{")) {
		return json.Unmarshal(text, &v.any) // null or a string
	}
	var wire wireValue
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	switch {
	case wire.Integer != nil:
		v.any, err = strconv.ParseInt(*wire.Integer, 10, 64)
	case wire.Real != nil:
		v.any, err = strconv.ParseFloat(*wire.Real, 64)
	default:
		v.any = wire.Blob
	}
	return err
}
