# Every target that needs it first makes .venv (tools/setup.sh); that costs nothing the second time.
SHELL := /bin/bash
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint format constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with edgekd, its extras and the development tools
	@tools/setup.sh
	@tools/tensorrt_bindings.sh

quickstart: setup ## run the main job on drawn images: distil, export, bench, report
	$(BIN)/edgekd run recipes/quickstart.yaml

test: setup lint ## lint, then the whole test suite
	tools/tests.sh

lint: setup ## ruff, mypy, import-linter, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: ## resolve constraints/*.txt anew; UPGRADE=1 takes the newest versions
	@UV="$${UV:-$$(command -v uv || echo .uv/bin/uv)}" tools/constraints.sh $(if $(UPGRADE),--upgrade)

clean: ## remove what make made, except runs/ and data/
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
