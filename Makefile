# Everything a person or CI does with this tree. `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help demo serve test test-slow fuzz check format bench load lock setup clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(INSTALLED) ## Create .venv with the locked packages

$(INSTALLED): requirements/dev.txt pyproject.toml offline_sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || \
		{ echo "Fanxing needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "No venv module: apt-get install -y python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e offline_sdk -e .
	@touch $@

demo: setup ## The main job, end to end, on embedded SQLite; leaves its work in var/demo
	$(BIN)/fanxing demo

serve: setup ## Start the API on FANXING_HOME (run `fanxing init` first)
	$(BIN)/fanxing serve

test: setup ## The test suite (real PostgreSQL from a wheel, real HTTP, real Chromium)
	$(BIN)/python -m pytest -q -n 3

test-slow: setup ## The long tests: a million mutations, 500,000 steps and 1,000 simulated seeds of loyalty, five in six of the tests on SQLite (all run on PostgreSQL in `make test`), kill -9 of claims, factory and scanner, a Ray cluster, 1,000 keys in a token
	$(BIN)/python -m pytest -q -m slow

fuzz: setup ## Ten million inputs for each reader of strangers' bytes: hours; findings go to var/fuzz
	$(BIN)/python -m tests.fuzz --runs 10000000

check: setup ## Lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: setup ## Rewrite the source in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure, each figure beside its yardstick
	$(BIN)/python -m tests.bench

load: setup ## Drive the four users against a server that this starts on 127.0.0.1, for one minute
	$(BIN)/python -m loadtest.run

lock: setup ## Compile the hashed lock files anew
	requirements/compile.sh

clean: ## Remove what was built (keeps var/)
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache
