#!/bin/bash
# Runs what there is of the conformance kit, in the environment of tox, and says what there is not.
set -euo pipefail

found=no
if [ -d tests/conformance ]; then
    found=yes
    python -m pytest tests/conformance "$@"
fi
if python -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("execdrv_conformance.__main__"))'; then
    found=yes
    python -m execdrv_conformance
fi
[ $found = yes ] || echo 'conformance: the kit has no checks yet; nothing was run, nothing is proven'
