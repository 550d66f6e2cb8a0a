package dashboard

import (
	"fmt"
	"net/http"
	"net/url"
)

// checkOrigin returns an error if a text is not an origin in the form that browsers send.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Scheme+"://"+u.Host != origin {
		return fmt.Errorf("%q is not an origin such as \"https://ops.example.com\"", brief(origin))
	}
	return nil
}

// crossOrigin reports whether a browser sends an action from a page of another origin that is not
// trusted. It follows the rules of http.CrossOriginProtection, which needs Go 1.25.
func (d *dashboard) crossOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "": // a browser from before 2023, or another program
		if u, err := url.Parse(origin); origin == "" || err == nil && u.Host == r.Host {
			return false
		}
	}
	return !d.origins[origin]
}
