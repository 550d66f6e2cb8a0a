#!/usr/bin/env bash
# Installs what the tests need besides Go, on Debian and Ubuntu, by root or by sudo without a password.
# Otherwise it prints one line for each thing that is missing, and what is left out without it.
#
#	scripts/setup.sh                   checks all things
#	scripts/setup.sh gcc postgresql    checks these: gcc, postgresql, node, python, cargo, pgbouncer, chromium
#
# Where CI is set, a thing that is missing after that is an error.
set -euo pipefail

wanted=" $* "
missing=() # packages
left_out=()

# need checks a thing by a command. If it is missing, need notes its packages, and what is left out.
need() {
	local thing=$1 packages=$2 without=$3
	shift 3
	if [[ $wanted != '  ' && $wanted != *" $thing "* ]] || "$@"; then
		return
	fi
	missing+=("$packages")
	left_out+=("$without")
}

have() { command -v "$1" >/dev/null; }
have_postgresql() { have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
have_node() { have node && have npm; }
have_python() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
have_pgbouncer() { have pgbouncer || [[ -x /usr/sbin/pgbouncer ]]; }
have_chromium() { have chromium || have chromium-browser || have google-chrome; }

check() {
	missing=() left_out=()
	need gcc 'gcc libc6-dev' 'a C compiler: the race detector, and the drivers mattn and go-libsql' have gcc
	need postgresql postgresql 'PostgreSQL: the suite on lib/pq and pgx' have_postgresql
	need node 'nodejs npm' 'Node with npm: the Turso engine, and PostgreSQL 13 and 18' have_node
	need python 'python3 python3-venv' 'Python with venv: sharing tables with pgqrs 0.15' have_python
	# Debian 12 calls a cargo that is new enough cargo-web.
	need cargo 'cargo-web rustc-web' 'cargo: sharing SQLite tables with pgqrs 0.15' have cargo
	need pgbouncer pgbouncer 'PgBouncer: the tests behind a pooler' have_pgbouncer
	need chromium chromium 'Chromium: the tests of the dashboard in a browser' have_chromium
}

install() {
	local sudo=
	if ! have apt-get; then
		return
	fi
	if ((EUID != 0)); then
		if ! have sudo || ! sudo -n true 2>/dev/null; then
			return
		fi
		sudo=sudo
	fi
	$sudo apt-get update >/dev/null || return 0
	local packages
	for packages in "${missing[@]}"; do # each by itself, so that one that has no candidate keeps back no other
		# shellcheck disable=SC2086
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages >/dev/null || true
	done
}

check
if ((${#missing[@]})); then
	echo "installing what is missing: ${missing[*]}"
	install
	check
fi
for what in "${left_out[@]}"; do
	echo "left out without $what"
done
if [[ -n ${CI:-} ]] && ((${#missing[@]})); then
	echo 'FAIL: where CI is set, nothing may be missing' >&2
	exit 1
fi
