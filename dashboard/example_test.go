package dashboard_test

import (
	"context"
	"crypto/subtle"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

// The dashboard authenticates nobody, so the application's own middleware protects it.
func Example() {
	store, err := pgqrs.Open(context.Background(), os.Getenv("PGQRS_DSN"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// Replace this by the middleware that admits operators to the rest of the application.
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

	queues := dashboard.Handler(store, dashboard.Options{
		Title: "shop queues", Actions: true, Hosts: []string{"ops.example.com"}, Logger: slog.Default(),
		Actor: func(r *http.Request) string {
			user, _, _ := r.BasicAuth()
			return user
		},
	})
	mux := http.NewServeMux()
	mux.Handle("/ops/queues/", operatorsOnly(http.StripPrefix("/ops/queues", queues)))
	server := &http.Server{Addr: "localhost:8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}
