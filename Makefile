# Everything a fresh clone needs: `make demo` shows it, `make test` checks it. Both start from a bare Python 3.11 or
# newer (PYTHON=...) and keep what they install in .venv; it is renewed when pyproject.toml or constraints.txt change.

PYTHON ?= python3
JOBS ?= 2
BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Tests that cover every package in under two minutes on two cores; the others take longer or repeat them more widely.
QUICK = tests/test_house.py tests/test_docs.py tests/test_launch.py tests/test_fields.py tests/test_camera.py \
    tests/test_intersect.py tests/test_implicit.py tests/test_render.py tests/test_mesh.py tests/test_datasets.py \
    tests/test_recipe.py tests/test_losses.py tests/test_evaluation_surfaces.py tests/test_usd.py \
    tests/test_scene.py tests/test_codes.py tests/test_viewer.py tests/test_singleview_augmentation.py

.PHONY: help venv demo test check lint docs bench test-placement compile-cuda gpu-report clean

help:
	@echo "make demo    fit a bunny to images, write its mesh, USD and pictures to runs/bunny"
	@echo "make test    all checks and tests, in JOBS processes (2)"
	@echo "make check   all checks and a quick selection of the tests, in under two minutes"
	@echo "make lint    the checks without the tests"
	@echo "make test-placement  find tensors on the wrong device, on a GPU that is pretended"
	@echo "make gpu-report  on a GPU: tests, pictures a second, seconds to a fit; into benchmarks/gpu.md"
	@echo "make compile-cuda  compile every kernel for four generations of GPUs; needs none"
	@echo "make docs    build the documentation into build/site"
	@echo "make bench   all benchmarks"
	@echo "make venv    .venv with everything, for developing"
	@echo "make clean   remove what the others made, except runs/"

venv: .venv/test.stamp .venv/docs.stamp

demo: .venv/run.stamp
	$(BIN)/warpdvr fit scenes/bunny.toml --out runs/bunny --overwrite

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist=worksteal

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist=worksteal $(QUICK)

test-placement: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist=worksteal --device pretend-cuda

gpu-report: .venv/test.stamp
	$(BIN)/python benchmarks/gpu_report.py

compile-cuda: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist=worksteal --arch all tests/test_cuda_compilation.py

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs.stamp
	$(BIN)/mkdocs build --strict
	@echo "The documentation is build/site/index.html"

bench: .venv/test.stamp
	@set -e; for file in benchmarks/*.py; do \
	    test -f "$$file" || { echo "There are no benchmarks yet."; break; }; \
	    echo "== $$file"; $(BIN)/python "$$file"; \
	done

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find warpdvr kernels fields tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# What a user needs; the other stamps add what a developer needs on top.
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

.venv/docs.stamp: .venv/run.stamp
	$(INSTALL) --no-build-isolation --editable ".[docs]"
	@touch $@
