#!/usr/bin/env bash
# Checks everything: format, prose, vet, staticcheck, known vulnerabilities, the root module's promises, tidy
# modules, and all tests, on every driver. The race detector is on, except for drivers where another
# one runs the same code of the library: ncruces does for SQLite, and pgx for PostgreSQL.
#
#	scripts/test.sh             runs each test once
#	COUNT=10 scripts/test.sh    runs each test ten times
#	RACE=all scripts/test.sh    has the race detector on for those too
#	PGQRS_TEST_BACKEND=sqlite scripts/test.sh    runs the conformance suite on one backend alone:
#	                            postgres, sqlite, libsql or turso
#
# It needs Go. scripts/setup.sh installs what else it needs, or says what is left out.
# Where CI is set, nothing is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.1.4
oldest=go1.24.0 # that go.mod allows
newest=go1.27.2
count=${COUNT:-1}
packages=$((3 * $(getconf _NPROCESSORS_ONLN) / 2)) # at a time: many tests wait more than they compute

have() { command -v "$1" >/dev/null; }
step() { printf '\n== %s\n' "$*"; }
fail() {
	printf 'FAIL: %s\n' "$*" >&2
	exit 1
}

# each_module runs a command in every module, each on its own. Without a C compiler go-libsql does
# not build, and with it the module tests.
each_module() {
	local mod
	while read -r mod; do
		if [[ $mod == ./tests/go.mod ]] && ! have gcc; then
			echo "left out without a C compiler: $(dirname "$mod")"
			continue
		fi
		echo "$(dirname "$mod"): $*"
		(cd "$(dirname "$mod")" && GOWORK=off "$@") || fail "$* in $(dirname "$mod")"
	done < <(find . -name go.mod -not -path '*/testdata/*' | sort)
}

backend=${PGQRS_TEST_BACKEND:-}
case $backend in
'') scripts/setup.sh ;;
postgres)
	scripts/setup.sh gcc postgresql
	drivers='pq pgx'
	;;
sqlite)
	scripts/setup.sh gcc
	drivers='ncruces modernc memory encrypted'
	if have gcc; then drivers+=' mattn'; fi
	;;
libsql)
	scripts/setup.sh gcc
	drivers='libsql'
	;;
turso)
	scripts/setup.sh node
	drivers='turso tursomvcc'
	;;
*) fail "PGQRS_TEST_BACKEND is $backend, and not postgres, sqlite, libsql or turso" ;;
esac
if [[ -n $backend ]]; then
	step "the conformance suite on $backend: $drivers"
	# shellcheck disable=SC2086
	go test "-count=$count" "-timeout=$((30 * count))m" $(printf './tests/drivers/%s ' $drivers) || fail "the suite on $backend"
	exit
fi

step 'format'
unformatted=$(gofmt -l .)
[[ -z $unformatted ]] || fail "gofmt would change:"$'\n'"$unformatted"

step 'prose of comments and pages'
go run ./scripts/prose >/dev/null || fail 'go run ./scripts/prose -list shows the sentences to rewrite'

step 'the root module alone: go 1.24, the standard library, sqlmock for its tests'
GOWORK=off go build ./...
version=$(GOWORK=off go list -m -f '{{.GoVersion}}')
[[ $version == 1.24 ]] || fail "go.mod says go $version, not go 1.24"
requires=$(go mod edit -json | awk -F'"' '/"Require":/ {r = 1} r && /"Path":/ {print $4}')
[[ $requires == github.com/DATA-DOG/go-sqlmock ]] || fail "go.mod requires:"$'\n'"$requires"
deps=$(GOWORK=off go list -deps -f '{{if not (or .Standard .Module.Main)}}{{.ImportPath}}{{end}}' ./...)
[[ -z $deps ]] || fail "packages outside the standard library are imported:"$'\n'"$deps"

step 'vet'
each_module go vet ./...

step 'vet for other systems'
for os in darwin windows; do
	for module in . cronpgqrs mockpgqrs notifypgqrs otelpgqrs; do
		echo "$os: $module"
		(cd "$module" && GOWORK=off GOOS=$os go vet ./...) || fail "go vet in $module for $os"
	done
	(cd cmd/pgqrs && GOWORK=off GOOS=$os go build -o /dev/null ./...) || fail "go build in cmd/pgqrs for $os"
done

step 'staticcheck'
each_module go run "$staticcheck" ./...

step 'tidy modules'
each_module go mod tidy -diff

report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT

step 'known vulnerabilities'
GOBIN=$report go install "$govulncheck"
while read -r mod; do
	status=0
	found=$(cd "$(dirname "$mod")" && GOWORK=off timeout 120 "$report/govulncheck" ./... 2>&1) || status=$?
	case $status in
	0) echo "$(dirname "$mod"): none" ;;
	3) fail "known vulnerabilities in $(dirname "$mod"):"$'\n'"$found" ;;
	*)
		echo 'left out: the database of vulnerabilities cannot be reached'
		break
		;;
	esac
done < <(find . -name go.mod -not -path '*/testdata/*' | sort)

step 'pgqrs 0.15.3, which the tests share tables with'
(cd tests && go test -timeout 30m -run TestEnvironments ./interop) || fail 'pgqrs 0.15.3'

step "tests, $count times each"
go build -o "$report/report" ./tests/internal/report
# SQLite itself, translated to Go, and the compiler of its WebAssembly are left out of the race detector: they are slow there,
# and not what is tested. Only packages that hold no lock and no atomic may be left out: what an instrumented package
# shares with them through one would look like a race.
flags=(-shuffle=on "-count=$count" "-timeout=$((30 * count))m" "-p=$packages" -json)
race=()
if have gcc; then
	race=(-race)
else
	echo 'left out without a C compiler: the race detector, and the drivers mattn and go-libsql'
fi
compiler=github.com/tetratelabs/wazero/internal/engine/wazevo
for package in modernc.org/sqlite/lib github.com/ncruces/go-sqlite3-wasm/v6 $compiler/{backend/...,frontend,ssa}; do
	race+=("-gcflags=$package=-race=false")
done
left_out='/tests/settings$|/tests/drivers/ncruces$' # below
if ! have gcc; then
	left_out="$left_out|/tests/drivers/(libsql|mattn)$|/interop$|/bench"
fi
plain='/tests/drivers/(encrypted|libsql|mattn|memory|modernc|pq|turso|tursomvcc)$'
if [[ ${RACE:-} == all ]]; then
	plain='^$'
fi
(
	status=0
	# The module of concurrent is not in go.work: it needs an older release of a driver. The suite of
	# ncruces runs with the newest Go. The packages memory and encrypted use this driver with the usual Go.
	(
		status=0
		detector=()
		if [[ ${RACE:-} == all ]]; then detector=("${race[@]}"); fi
		(cd tests/drivers/concurrent && GOWORK=off go test "${detector[@]}" "${flags[@]}" ./...) || status=1
		GOTOOLCHAIN=$newest go test "${race[@]}" "${flags[@]}" ./tests/drivers/ncruces ./examples/quickstart || status=1
		exit $status
	) >"$report/beside" &
	beside=$!
	go list work | grep -vE "$left_out" | grep -vE "$plain" | xargs go test "${race[@]}" "${flags[@]}" || status=1
	if [[ ${RACE:-} != all ]]; then
		go list work | grep -E "$plain" | xargs go test "${flags[@]}" || status=1
	fi
	wait $beside || status=1
	cat "$report/beside"
	exit $status
) | "$report/report" || fail "tests"

step "the root module's tests with $oldest, with $newest, and on a 32-bit processor"
GOWORK=off GOTOOLCHAIN=$oldest go test "-count=$count" ./... || fail "tests with $oldest"
GOWORK=off GOTOOLCHAIN=$newest go test "-count=$count" ./... || fail "tests with $newest"
GOWORK=off GOARCH=386 go test "-count=$count" ./... || fail "tests with GOARCH=386"

if [[ $(uname -sm) == 'Linux x86_64' ]] && command -v npm >/dev/null; then
	step "the conformance suite on the oldest PostgreSQL and the newest, with unusual settings"
	export PACKAGES=settings
	FLAGS="-count=$count -run=PQ|PgxExec|Encoding" scripts/postgres-versions.sh 13 &
	oldest_server=$!
	FLAGS="-count=$count -run=PgxSimple" GOTOOLCHAIN=$newest scripts/postgres-versions.sh 18 || fail "the suite on PostgreSQL 18"
	wait $oldest_server || fail "the suite on PostgreSQL 13"
else
	[[ -z ${CI:-} ]] || fail "the other versions of PostgreSQL need npm, on Linux on x86-64"
	step 'left out: other versions of PostgreSQL, which need npm, on Linux on x86-64'
fi

step 'all passed'
