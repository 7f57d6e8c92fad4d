# Two commands: `make demo` and `make test`; each sets up what it needs. `make help` lists the rest.
# All that is written stays in this folder; only pip keeps its downloads where it always does.

PYTHON ?= python3
UV ?= uv

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BARE := .sandbox/bare
IMAGE := lcm-outcome-worker:development
BASE = $(shell sed -n 's/^FROM \([^ ]*\)$$/\1/p' Dockerfile)
LOCKED := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test faults soak fuzz mutants bench lint lock sbom audit dist image clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## make .venv with the locked dependencies and this package in it

demo: setup  ## a broker, LCM, a worker and jobs, all on this machine
	@$(BIN)/lcm-worker demo

# Some of the tests say nothing about coverage: it is measured, and its floor applies, where ARGS is empty. All of them
# run in two processes, each with a broker of its own, since most of their time is waiting.
test: setup  ## lint, check types, run all tests and measure their coverage; ARGS="-k name" picks some
	@$(BIN)/python -m worker.sandbox.server ensure --for-tests
	@$(MAKE) --no-print-directory lint
	@mkdir -p -m 700 .sandbox
	$(BIN)/pytest --basetemp=.sandbox/pytest $(or $(ARGS),--cov --numprocesses=2 --dist=loadfile)

faults: setup  ## inject faults into real parts; writes faults.json; ARGS="--seed 7" repeats a run
	@$(BIN)/python -m worker.sandbox.server ensure --for-tests
	@mkdir -p -m 700 .sandbox
	$(BIN)/pytest --basetemp=.sandbox/pytest-faults --faults-full --faults-json=faults.json tests/faults $(ARGS)

soak: setup  ## the exchange with LCM under 200,000 random schedules; ARGS="--simulation-seed 123" replays one
	@mkdir -p -m 700 .sandbox
	$(BIN)/pytest --basetemp=.sandbox/pytest-soak --capture=no --schedules=200000 \
	    tests/simulation/test_simulation.py -k keeps_the_promises $(ARGS)

fuzz: setup  ## random inputs for all that reads from outside, by coverage; ARGS="--seconds 60 --target job"
	@$(BIN)/python -m tests.fuzz $(ARGS)

mutants: setup  ## take out each protection and see its test fail; ARGS="-k pong" picks some
	@$(BIN)/python -m worker.sandbox.server ensure --for-tests
	@$(BIN)/python -m tests.mutants $(ARGS)

bench: setup  ## measure the worker beside other programs; ARGS="--only cpu --quick", --json FILE, --plot DIR
	@$(BIN)/python -m worker.sandbox.server ensure
	@$(BIN)/python -m tests.benchmarks $(ARGS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock:  ## bring the locks in line with pyproject.toml; ARGS=--upgrade takes the newest versions
	$(UV) pip compile $(LOCKED) $(ARGS) --group build pyproject.toml -o requirements.lock
	$(UV) pip compile $(LOCKED) $(ARGS) --extra otel --group build --group dev --group bench pyproject.toml -o requirements-dev.lock

sbom: setup  ## what the worker is made of: sbom.json (CycloneDX 1.6), and docs/licences.md anew
	$(BIN)/python -m tests.supply

audit: setup  ## ask for known vulnerabilities of what runs; needs the internet
	$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements.lock

# The archives of one commit are the same, byte for byte, wherever they are built: their files have its time.
dist: setup  ## build the sdist and the wheel, look into them, and run the wheel in a bare virtual environment
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation
	$(BIN)/python -m tests.release archives
	@mkdir -p -m 700 .sandbox
	$(BIN)/python -m venv --clear $(BARE)
	$(BARE)/bin/pip install -qq --require-hashes -r requirements.lock
	$(BARE)/bin/pip install -qq --no-deps dist/*.whl
	$(BARE)/bin/pip check
	$(BIN)/python -m tests.release trial $(BARE)/bin/lcm-worker

# What the Dockerfile's tag stands for today is looked up first: it is built on, and told by the image's labels.
image:  ## build the image on a base of a known digest; needs docker buildx; IMAGE=NAME:TAG ARGS=--push
	@digest=$$(docker buildx imagetools inspect $(BASE) --format '{{.Manifest.Digest}}') && set -x && \
	docker buildx build $(or $(ARGS),--load) --tag $(IMAGE) \
	    --build-context $(BASE)=docker-image://$(BASE)@$$digest \
	    --label org.opencontainers.image.base.name=$(BASE) \
	    --label org.opencontainers.image.base.digest=$$digest .

clean:  ## remove whatever these targets made
	rm -rf $(VENV) .sandbox dist *.egg-info sbom.json .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find worker tests -name __pycache__ -type d -exec rm -rf {} +

# From scratch whenever a lock changes, so that nothing stays which isn't in it.
$(READY): pyproject.toml requirements-dev.lock requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, and $(PYTHON) is not: try make PYTHON=python3.13" >&2; exit 1; }
	@echo "setting up $(VENV), once ..." >&2
	@rm -rf *.egg-info # an earlier build backend left it: Python would take the version from there
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@
