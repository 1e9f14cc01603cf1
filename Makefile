# `make quickstart` and `make test` need Python >= 3.10 and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart demo results results-long test test-all test-oldest fuzz check format bench

quickstart: .venv/.run
	$(BIN)/python -m fig.quickstart

demo: .venv/.run
	$(BIN)/python -m fig.demo

results: .venv/.run
	$(BIN)/python -m fig.results

results-long: .venv/.run
	$(BIN)/python -m fig.results_long

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: .venv/.dev
	$(BIN)/python -m pytest -n auto --hypothesis-profile ci

# With the oldest torch and NumPy that requirements.txt allows; takes about 6 GB on the disk.
test-oldest: .venv-oldest/.dev
	.venv-oldest/bin/python -m pytest -n auto --dist worksteal -m "not slow"

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

.venv-oldest/.dev: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt torch==2.6.0 torchvision==0.21.0 numpy==1.26.4
	touch $@

.venv/.run: .venv/bin/python requirements.txt constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -c constraints.txt
	touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt -c constraints.txt
	touch $@
