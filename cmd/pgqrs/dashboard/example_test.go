package dashboard_test

import (
	"context"
	"crypto/subtle"
	"log"
	"net/http"
	"os"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/cmd/pgqrs/dashboard"
)

// The dashboard knows no users: the application's own middleware stands in front of it.
func Example() {
	store, err := pgqrs.Open(context.Background(), os.Getenv("PGQRS_DSN"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// In the place of this one, put what lets operators into the rest of the application.
	operatorsOnly := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			if secret := os.Getenv("OPS_PASSWORD"); secret == "" || subtle.ConstantTimeCompare([]byte(password), []byte(secret)) != 1 {
				w.Header().Set("WWW-Authenticate", `Basic realm="operations"`)
				http.Error(w, "Operators only.", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}

	queues := dashboard.Handler(store, dashboard.Options{Title: "shop queues", Actions: true})
	mux := http.NewServeMux()
	mux.Handle("/ops/queues/", operatorsOnly(http.StripPrefix("/ops/queues", queues)))
	log.Fatal(http.ListenAndServe("localhost:8080", mux))
}
