#!/bin/bash
# Runs tests in a virtual machine that has cgroup v2 with every controller, and nothing else of
# this machine's kernel. What goes in is the tree and the packages of the environment `cases`.
#
#   ARGS='tests/execdrv/linux/cgroups' scripts/test-vm.sh
set -euo pipefail
cd "$(dirname "$0")/.."

.cache/tools/bin/tox run --colored no -e cases --notest
environment=.tox/cases
# The tree has no init of its own: that one is made with the wheel.
install -m 755 "$environment"/lib/python3*/site-packages/execdrv/init/execdrv-init execdrv/init/

arguments=(tests/execdrv/linux/cgroups)
[ -z "${ARGS:-}" ] || mapfile -t arguments < <(xargs printf '%s\n' <<<"$ARGS")
export VM_PYTHON=$PWD/$environment/bin/python
export VM_PACKAGES='attr attrs pluggy pytest _pytest pytest_timeout py iniconfig packaging pygments elftools'
export VM_SWAP_MB=${VM_SWAP_MB:-512}  # without swap the tests of its limit are skipped
exec scripts/vm/run.sh -t 1800 python3 -m pytest -p no:cacheprovider "${arguments[@]}"
