#!/usr/bin/env bash
# Lets the tests of crashes, faults and models go on for long, one after the
# other, and prints what came of each fault as a table; docs/RELIABILITY.md
# says what they do. It fails if anything was lost or doubled.
#
#	make soak               30 minutes in all
#	scripts/soak.sh 240     so many minutes
#
# It needs Go and PostgreSQL's server binaries; what a test needs besides it
# says, and fails without it if CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-30}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || {
	echo "usage: $0 [minutes]" >&2
	exit 2
}

# What shares the time: a package, its share in hundredths, and how many of its
# tests each go on for as long as PGQRS_SOAK says.
plan='
crash  38 2
faults 34 3
model  22 4
fuzz    6 1
'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PGQRS_SOAK_REPORT=$scratch/report
: >"$PGQRS_SOAK_REPORT"
status=0

# soak runs a package's tests, each for so many seconds.
soak() {
	local package=$1 seconds=$2
	printf '\n== %s, %d s each\n' "$package" "$seconds"
	PGQRS_SOAK=${seconds}s go test -count=1 -timeout="$((minutes + 30))m" "./tests/$package" || status=1
}

soak volume 1 # takes as long as a million messages take
shares=100
while read -r package share tests; do
	[[ -n $package ]] || continue
	left=$((minutes * 60 - SECONDS))
	((left > 60)) || left=60
	soak "$package" $((left * share / shares / tests))
	shares=$((shares - share))
done <<<"$plan"

printf '\n== %d minutes with %s, %d processors, %s\n\n' $((SECONDS / 60)) "$(go env GOVERSION)" "$(nproc)" "$(uname -sm)"
go run ./tests/internal/reliability/table <"$PGQRS_SOAK_REPORT"
((status == 0)) || echo 'FAIL' >&2
exit "$status"
