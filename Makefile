# Every target makes what it needs: Python 3.11+, pip and make are enough.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PROVE ?= slow
COVERAGE ?=

.PHONY: demo test check prove bench imports wheel clean

demo: .venv/demo.installed  ## the online line at work, without a key or a network
	$(BIN)/cappy demo

test: .venv/dev.installed  ## all tests that are fast enough for every commit; COVERAGE=1 counts branches
	$(BIN)/python -m pytest -n 2 --dist worksteal $(if $(COVERAGE),--cov)

check: .venv/dev.installed  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

prove: .venv/dev.installed  ## what is too slow for every commit: models of real size
	$(BIN)/python -m pytest -m "$(PROVE)" -n 2 --dist worksteal

bench: .venv/dev.installed  ## how fast pairs are scored, beside sentence-transformers and plain onnxruntime
	$(PIP) --editable '.[dev,bench]'
	$(BIN)/python benchmarks/scoring.py --quick

imports: .venv/dev.installed  ## the picture in docs/architecture.md
	$(BIN)/python docs/imports.py

wheel: .venv/dev.installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo.installed: .venv/made pyproject.toml
	$(PIP) --editable .
	touch $@

# Torch first and pinned: a bare `torch` may pull gigabytes of CUDA.
.venv/dev.installed: .venv/made pyproject.toml
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	touch $@
