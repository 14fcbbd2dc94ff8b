# Everything a fresh clone needs: `make demo` shows it, `make test` checks it. Both start from a bare Python 3.11 or
# newer (PYTHON=...) and keep what they install in .venv; it is renewed when pyproject.toml or constraints.txt change.

PYTHON ?= python3
BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: help venv demo test lint bench clean

help:
	@echo "make demo    fit a bunny to images, write its mesh, USD and pictures to runs/bunny"
	@echo "make test    all checks and tests"
	@echo "make lint    the checks without the tests"
	@echo "make bench   all benchmarks"
	@echo "make venv    .venv with everything, for developing"
	@echo "make clean   remove what the others made, except runs/"

venv: .venv/test.stamp

demo: .venv/run.stamp
	$(BIN)/warpdvr fit scenes/bunny.toml --out runs/bunny --overwrite

test: lint
	$(BIN)/pytest -q

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/test.stamp
	@set -e; for file in benchmarks/*.py; do \
	    test -f "$$file" || { echo "There are no benchmarks yet."; break; }; \
	    echo "== $$file"; $(BIN)/python "$$file"; \
	done

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find warpdvr kernels fields tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# What a user needs; the second stamp adds what a developer needs on top.
.venv/run.stamp: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { \
	    echo "warpdvr needs Python 3.11 or newer, but there is no $(PYTHON): set PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	    "warpdvr needs Python 3.11 or newer, but $(PYTHON) is %d.%d: set PYTHON=..." % sys.version_info[:2])'
	@echo "Installing into .venv; the first time this takes some minutes."
	"$(PYTHON)" -m venv .venv
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/test.stamp: .venv/run.stamp
	$(INSTALL) --no-build-isolation --editable ".[test]"
	@touch $@
