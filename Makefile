# Targets for people and for .ci/run. `make demo` needs nothing but Python 3.11 and this file.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.SILENT:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS ?= 2
ARGS ?=

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.runtime ## Make .venv with what Posthouse needs to run

develop: $(VENV)/.develop ## Make .venv with what tests and checks need as well

demo: setup ## Send 10,000 signed mails into 100 mailboxes here, through a kill -9, and count them
	$(BIN)/posthouse demo $(ARGS)

demo-cluster: develop ## The same on PostgreSQL, Kafka, Redis, S3 and OpenSearch, as six processes
	$(BIN)/python scripts/demo_cluster.py $(ARGS)

serve: setup ## Set up ./posthouse-data and serve
	$(BIN)/posthouse init
	exec $(BIN)/posthouse serve $(ARGS)

test: develop ## Run the tests; ARGS are pytest's
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: develop ## Lint, format, types, import contract, generated docs, shell syntax
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python scripts/reference.py --check
	for script in .ci/run scripts/*.sh scripts/services/*.sh; do bash -n "$$script"; done

format: develop ## Rewrite the sources as `check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: develop ## Generate docs/reference from the code
	$(BIN)/python scripts/reference.py

bench: develop ## Measure; the figures in docs/performance.md. ARGS="send --json" for one
	$(BIN)/python -m bench $(ARGS)

lock: $(VENV)/bin/python ## Renew requirements*.lock (needs uv; installs it when missing)
	uv=$$(command -v uv || true)
	if [ -z "$$uv" ]; then $(PIP) install uv; uv=$(BIN)/uv; fi
	compile() { "$$uv" pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$$@"; }
	compile $(ARGS) --extra build --output-file requirements.lock
	compile $(ARGS) --extra build --extra dev --output-file requirements-dev.lock

clean: ## Remove what the targets above made, but no data
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist .demo

$(VENV)/bin/python:
	bash scripts/venv.sh "$(PYTHON)" "$(VENV)"

# A stamp is newer than what it was made from, or it is made again.
$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	echo "Installing what Posthouse needs into $(VENV)"
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.develop: requirements-dev.lock $(VENV)/.runtime
	echo "Installing what tests and checks need into $(VENV)"
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

.PHONY: help setup develop demo demo-cluster serve test check format docs bench lock clean
