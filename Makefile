# Everything starts from a bare checkout: each target makes .venv first, if it is missing or pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## train, test and predict on the shipped images; the result is runs/demo/report.html
	$(BIN)/internimage demo

test: $(READY) ## the tests: offline, on a CPU
	$(BIN)/python -m pytest

check: $(READY) ## formatting, linting, types, import layers, layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: $(READY) ## measure operator, models and training step; OFFICIAL=path compares with an official checkout
	$(BIN)/python -m benchmarks $(if $(OFFICIAL),--official $(OFFICIAL))

docs: $(READY) ## check that every link and code block of the documentation works
	$(BIN)/python -m pytest -q tests/test_docs.py
