package dashboard

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// noticed is how long the page after an action shows its result.
const noticed = time.Minute

// A sealer signs the result of an action in the address of the next page, so that no link can forge
// a result. Each Handler has a key of its own.
type sealer [32]byte

func newSealer() (s sealer) {
	rand.Read(s[:]) // it never fails
	return s
}

// seal returns the value of "done" for a page. The page is an address that ends where fields of its
// query can be added.
func (s *sealer) seal(page, what string, n int64, until time.Time) string {
	done := fmt.Sprintf("%s.%d.%d", what, n, until.Unix())
	return done + "." + s.sign(page, done)
}

func (s *sealer) sign(page, done string) string {
	mac := hmac.New(sha256.New, s[:])
	fmt.Fprintf(mac, "%q %q", page, done)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// open returns the result of an action that the address of a page contains.
func (s *sealer) open(r *http.Request, now time.Time) (what string, n int64, ok bool) {
	before, value, _ := strings.Cut(r.URL.RawQuery, "done=")
	end := strings.LastIndexByte(value, '.')
	page := strings.TrimPrefix(r.URL.Path, "/") + "?" + before
	if end < 0 || !hmac.Equal([]byte(value[end+1:]), []byte(s.sign(page, value[:end]))) {
		return "", 0, false
	}
	parts := strings.Split(value[:end], ".")
	if len(parts) != 3 {
		return "", 0, false
	}
	n, errCount := strconv.ParseInt(parts[1], 10, 64)
	until, errTime := strconv.ParseInt(parts[2], 10, 64)
	return parts[0], n, cmp.Or(errCount, errTime) == nil && now.Unix() <= until
}

// said returns the sentence about the action that led to this page.
func (d *dashboard) said(r *http.Request) string {
	what, n, ok := d.sealer.open(r, time.Now())
	a := actions[what]
	switch {
	case !ok:
		return ""
	case n == 0:
		return cmp.Or(a.undone, "Nothing was done: things stood differently already.")
	case strings.Contains(a.said, "%s"):
		return fmt.Sprintf(a.said, number(n))
	}
	return a.said
}
