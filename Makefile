# `make quickstart` and `make test` need Python >= 3.10 and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart demo results test test-all fuzz check format bench

quickstart: .venv/.run
	$(BIN)/python -m fig.quickstart

demo: .venv/.run
	$(BIN)/python -m fig.demo

results: .venv/.run
	$(BIN)/python -m fig.results

test: .venv/.dev
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: .venv/.dev
	$(BIN)/python -m pytest -n auto

fuzz: .venv/.dev
	$(BIN)/python -m tests.fuzz --cases 10000

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.run
	$(BIN)/python -m benchmarks

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed; name one with make PYTHON=...") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python requirements.txt constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -c constraints.txt
	touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt -c constraints.txt
	touch $@
