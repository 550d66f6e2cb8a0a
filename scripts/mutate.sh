#!/usr/bin/env bash
# Takes guards out of the library, one at a time, in a copy of the tree, and
# proves that the tests notice. It prints for each mutation how long that took
# and which test failed first, and fails if any mutation survived.
#
#	make mutate                    all of tests/internal/mutate/mutations.txt
#	scripts/mutate.sh NAME...      those
#	scripts/mutate.sh -jobs 8      eight at a time, in place of one a core, and two at least
#
# It needs Go, git and PostgreSQL's server binaries, and takes about a quarter of an hour on two idle cores.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./tests/internal/mutate "$@"
