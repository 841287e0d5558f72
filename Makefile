# make setup   create .venv and install everything (quick when nothing changed)
# make demo    200 devices train a click model, first asynchronously, then in rounds
# make test    lint, types, unit tests, integration tests
# make bench   measure the figures in benchmarks/results

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

VENV := .venv
BIN := $(VENV)/bin
# Flower's own commands start each other by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A benchmark is what can be run; record.py runs it, peer_environment.py makes what it compares
# with, other files are shared. FLB-1 has a table of its own, a result a row.
FIGURES := $(filter-out record peer_environment flb1%,$(basename $(notdir $(shell grep -l __main__ benchmarks/*.py))))
# Two test processes, a file in one of them: what a file's tests share is started once.
IN_PARALLEL := --numprocesses 2 --dist loadfile
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then command -v $$p; break; fi; done)

help:
	@sed -n 's/^# //p' Makefile | head -4

setup: $(STAMP)
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then \
		echo "Chromium is not installed: tests of the console in a browser are skipped." \
			"To run them: apt-get install chromium" >&2; fi

# The stamp is written last, so a broken installation is taken up again, and is older than
# pyproject.toml or constraints.txt when they change.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "FLINT needs Python 3.11 or newer and found none; install it, or name one:" \
			"make setup PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@if [ ! -x $(BIN)/python ]; then "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment; use a Python that has venv" \
			"and ensurepip: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/flint demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not integration" $(IN_PARALLEL)
	$(BIN)/python -m pytest -m integration $(IN_PARALLEL)

bench: $(STAMP)
	@for figure in $(FIGURES); do echo "== $$figure" >&2; \
		$(BIN)/python benchmarks/record.py "$$figure"; done
	$(BIN)/python benchmarks/flb1_table.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
