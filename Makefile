# On a machine with Python 3.11 or 3.12 and make, nothing else is needed by hand.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Where to fetch torch from, if not from pip's own index: https://download.pytorch.org/whl/cpu, …/whl/cu130
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow faults lint format wheel clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv with the exact versions of constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[dev]'
	@touch $@

demo: setup ## the whole method on the embedded corpus; prints the table and where the report is
	@PATH="$(abspath $(BIN)):$$PATH" bash experiments/demo/run.sh demo

lint: setup ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint, then the tests, but for some slow ones
	$(BIN)/pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder # files in order: the longest ones are not the last

slow: setup ## the tests that make test leaves out
	$(BIN)/pytest -m slow -n auto --dist load

faults: setup ## what ends runs on clusters, caused for real; prints a table
	$(BIN)/pytest -m faults -n auto --dist load

format: setup ## put the code in the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup ## build dist/erv-*.whl
	$(BIN)/python -m build --wheel

clean: ## remove what can be made again, runs excepted
	rm -rf $(VENV) build dist cache *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
