#!/usr/bin/env bash
# Compares the declarations, the statements and the exported documentation of two commits, to show
# that a move of code changed nothing else. It prints the differences and fails if there are any.
#
#	scripts/moves.sh OLD [NEW] [DIRECTORY...]             NEW is HEAD by default, DIRECTORY the root package
#	scripts/moves.sh -renames OLD [NEW] [DIRECTORY...]    for a commit that changes unexported names
#
# A difference that is a qualifier is for the reader to judge. It needs Go and git.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=()
if [[ ${1:-} == -renames ]]; then
	flags=(-renames)
	shift
fi
old=${1:?usage: scripts/moves.sh [-renames] OLD [NEW] [DIRECTORY...]}
new=${2:-HEAD}
directories=("${@:3}")
((${#directories[@]})) || directories=(.)

scratch=$(mktemp -d)
trap 'git worktree prune; rm -rf "$scratch"' EXIT
go build -o "$scratch/declarations" ./scripts/declarations

# describe prints what a commit must keep.
describe() {
	local commit=$1 tree=$scratch/$2 directory present=()
	git worktree add --quiet --detach "$tree" "$commit"
	for directory in "${directories[@]}"; do
		if [[ -d $tree/$directory ]]; then
			present+=("$directory")
		fi
	done
	(
		cd "$tree"
		"$scratch/declarations" "${flags[@]}" "${present[@]}"
		go doc -all .
	) >"$scratch/$2.txt"
}

describe "$old" old
describe "$new" new
diff -U 0 "$scratch/old.txt" "$scratch/new.txt"
