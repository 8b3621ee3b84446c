# make demo: the whole story on the example project; make test: all tests. Both set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/ready
	$(BIN)/python docs/demo.py

test: .venv/ready
	$(BIN)/python -m pytest -n 2

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml
	@echo "Setting up .venv (PyTorch is large: some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

.PHONY: demo test lint
