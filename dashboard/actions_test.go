package dashboard

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// submit sends the form of an action as a browser sends it from the dashboard's own page.
func submit(h http.Handler, form url.Values, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/action", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnActionSaysWhatItsFormLacks(t *testing.T) {
	h := Handler(nil, Options{Actions: true})
	for what, a := range actions {
		form, lacks := url.Values{"do": {what}, "name": {"emails"}}, "the id of a "+a.on.noun
		if a.on.named {
			form, lacks = url.Values{"do": {what}, "id": {"7"}}, "the name of a "+a.on.noun
		}
		if w := submit(h, form); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), lacks) {
			t.Errorf("%s: status %d; want 400 and %q:\n%s", what, w.Code, lacks, w.Body)
		}
		if a.on.named {
			continue
		}
		for _, id := range []string{"0", "-7", "7 or 1", "99999999999999999999"} {
			form.Set("id", id)
			if w := submit(h, form); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "is not an id") {
				t.Errorf("%s of %q: status %d", what, id, w.Code)
			}
		}
	}
}
