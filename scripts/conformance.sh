#!/bin/bash
# The conformance part of the tests, in the environment of tox: the kit's own tests, the mutants with
# their own ids, and the drivers of this project, as far as there is time for it in CI.
set -euo pipefail

# What this machine can't show is skipped with its reason, and does not make the status 10 here.
exec python -m pytest tests/conformance -n 2 --dist load --conformance-allow-incomplete "$@"
