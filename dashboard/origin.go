package dashboard

import (
	"fmt"
	"net/http"
	"net/url"
)

// checkOrigin returns an error if a text is not an origin as browsers send it.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Scheme+"://"+u.Host != origin {
		return fmt.Errorf("%q is not an origin such as \"https://ops.example.com\"", brief(origin))
	}
	return nil
}

// crossOrigin reports whether a browser sends an action from the page of an origin that is not the
// dashboard's own and is not trusted. Its rules are those of http.CrossOriginProtection, which Go
// has from 1.25 on.
func (d *dashboard) crossOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "": // a browser of before 2023, or no browser
		if u, err := url.Parse(origin); origin == "" || err == nil && u.Host == r.Host {
			return false
		}
	}
	return !d.origins[origin]
}
