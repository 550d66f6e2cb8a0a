package dashboard

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A browser does not keep a Secure cookie of a plain connection to another machine.
func TestTheCookieIsSecureWhereTLSEndsAtAProxy(t *testing.T) {
	const token = "a-token-of-32-characters-for-tests"
	h := Handler(nil, Options{Token: token})
	for _, c := range []struct {
		address, site string
		secure        bool
	}{
		{"http://ops.example.com/", "none", true}, {"http://ops.example.com:8080/", "cross-site", true}, {"http://192.0.2.7/", "none", true},
		{"http://ops.example.com/", "", false}, {"https://ops.example.com/", "", true}, {"https://localhost/", "", true},
		{"http://localhost:8080/", "none", false}, {"http://127.0.0.1:8080/", "none", false}, {"http://[::1]:8080/", "none", false}, {"http://ops.localhost/", "none", false},
	} {
		r := httptest.NewRequest(http.MethodGet, c.address+"?token="+token, nil)
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}
		r.Header.Set("X-Forwarded-Proto", "https") // anybody can send it
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		cookies := w.Result().Cookies()
		if len(cookies) != 1 || cookies[0].Secure != c.secure {
			t.Errorf("%s, Sec-Fetch-Site %q: status %d, the cookies are %v; want Secure to be %v", c.address, c.site, w.Code, cookies, c.secure)
		}
	}
}
