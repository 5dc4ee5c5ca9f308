# Two commands for a new machine: `make run` and `make test`. Both install what is missing first.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test test-long lint types unit cases conformance mutants test-vm bench clean

# As typed: without this, make would replace every $ in it.
override ARGS := $(value ARGS)
export ARGS

help: ## this list
	@sed -n 's/^\([a-z -]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '  make %-36s %s\n' "$$name" "$$text"; done

run: ## one command under every driver; with ARGS='--driver=native -- sh -c "..."': execdrv run ARGS
	@scripts/setup.sh run
ifdef ARGS
	@exec .venv/bin/python -I scripts/run_args.py
else
	@exec .venv/bin/python -I scripts/demo.py
endif

test: ## lint, types, unit, the cases at CI size, conformance
	@scripts/setup.sh test
	@EXECDRV_CASES=ci scripts/test.sh lint types unit cases conformance

test-long: ## every case at its full count
	@scripts/setup.sh test
	@EXECDRV_CASES=long PYTEST_TIMEOUT=1800 scripts/test.sh cases

lint types unit cases conformance: ## only this part of the tests; ARGS go to pytest
	@scripts/setup.sh test
	@scripts/test.sh $@

mutants: ## every broken driver against the whole kit, two at a time; goes on where it was stopped
	@scripts/setup.sh test
	@.venv/bin/python scripts/mutants.py --shard 1/2 & \
		.venv/bin/python scripts/mutants.py --shard 2/2; wait
	@.venv/bin/python scripts/mutants.py --report

test-vm: ## the cgroup tests, or the tests in ARGS, in a QEMU machine that has cgroup v2 only
	@scripts/setup.sh vm
	@scripts/test-vm.sh

bench: ## measure against runc, bubblewrap and lxc-execute
	@scripts/setup.sh bench
	@exec .venv/bin/python -I bench/run.py

clean: ## remove all that these targets made in this folder; the cached root file systems stay
	rm -rf .venv .tox .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -f execdrv/init/execdrv-init
	find . -name __pycache__ -prune -exec rm -rf {} +
