#!/bin/bash
# Runs the named parts of the tests through tox, and ends with what pytest said of each.
#
#   EXECDRV_CASES=ci|long scripts/test.sh lint types unit cases conformance
set -euo pipefail
cd "$(dirname "$0")/.."

readonly log=.cache/test.log
parts=$(IFS=,; echo "$*")
arguments=()
[ -z "${ARGS:-}" ] || mapfile -t arguments < <(xargs printf '%s\n' <<<"$ARGS")
# What setup.sh found out: are the lxc bindings Debian's, or are there none at all?
! grep -q site-packages=yes .venv/made-for || export EXECDRV_SITE_PACKAGES=true
[ ! -e .cache/without-lxc ] || export EXECDRV_TEST_EXTRAS=test

status=0
.cache/tools/bin/tox run --colored no -e "$parts" -- "${arguments[@]}" 2>&1 | tee "$log" || status=$?

printf '\nIn short (all of it: %s):\n' "$log"
# The first line names the part, the second is pytest's closing line.
awk '
    match($0, /^[a-z]+: commands\[/) { part = substr($0, 1, index($0, ":") - 1) }
    /^=+ .*(passed|failed|error|skipped|no tests ran).* =+$/ { print part; print }
' "$log"
exit "$status"
