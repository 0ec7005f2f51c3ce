# Two commands on a fresh machine: `make quickstart` and `make test`. Each makes its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: quickstart install test lint types contracts links unit format crash crash-campaign mutants clean

quickstart: $(VENV)/.user
	$(BIN)/tunesmith quickstart

install: $(VENV)/.dev

test: lint types contracts links unit

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

links: $(VENV)/.dev
	$(BIN)/python tools/check_links.py README.md CONTRIBUTING.md CHANGELOG.md docs recipes

unit: $(VENV)/.dev
	$(BIN)/pytest -n 2 --ignore=tests/crash
	$(BIN)/pytest tests/crash

# Slower campaigns: not part of `make test`.
crash: $(VENV)/.dev
	$(BIN)/python tools/crash.py --kills 25 --corruptions 500

crash-campaign: $(VENV)/.dev
	$(BIN)/python tools/crash.py --kills 200 --corruptions 500 --record benchmarks/results

mutants: $(VENV)/.dev
	$(BIN)/python tools/mutants.py

format: $(VENV)/.dev
	$(BIN)/ruff format src tests tools benchmarks
	$(BIN)/ruff check --fix src tests tools benchmarks

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.user

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
