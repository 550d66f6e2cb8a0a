package dashboard

import (
	"net/http"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// actor returns who sent a request, by Options.Actor.
func (d *dashboard) actor(r *http.Request) string {
	var name string
	if err := foreign.Isolate(func() { name = d.options.Actor(r) }); err != nil {
		d.log.Error("dashboard: Options.Actor failed", "error", brief(err.Error()))
		return "unknown"
	}
	return brief(name)
}
