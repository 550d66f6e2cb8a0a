#!/usr/bin/env bash
# Checks what Go alone can check: format, vet, prose, the root module's tests, and the conformance suite on SQLite
# by a driver in pure Go. It takes less than three minutes, without what Go downloads.
#
#	scripts/short.sh
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
fail() {
	printf 'FAIL: %s\n' "$*" >&2
	exit 1
}

step 'format'
unformatted=$(gofmt -l .)
[[ -z $unformatted ]] || fail "gofmt would change:"$'\n'"$unformatted"

step 'vet'
GOWORK=off go vet ./...

step 'prose of comments and pages'
go run ./scripts/prose >/dev/null || fail 'go run ./scripts/prose -list shows the sentences to rewrite'

step "the root module's tests"
GOWORK=off go test ./...

step 'the conformance suite on SQLite, by ncruces'
go test ./tests/drivers/ncruces

cat <<'END'

== passed
Not run: the suite by the other drivers, PostgreSQL and Turso among them, tests of crashes, faults and models, the
command and its dashboard, interop with pgqrs 0.15, the race detector, staticcheck, other versions of Go. scripts/test.sh runs them.
END
