# make demo: the whole story on the example project; make test: all tests. Both set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
MANNERS := tests/plugin/test_manners.py tests/plugin/test_start.py

demo: .venv/ready
	$(BIN)/python docs/demo.py

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The plugin on the oldest pytest that is supported, and on those since; `make test` has the newest.
test-versions: $(addprefix .venv/pytest-,8.4 9.0)
	for version in $^; do echo "$$version"; PYTHONPATH=$(CURDIR)/$$version $(BIN)/python -m pytest -q -n 2 $(MANNERS) || exit 1; done

.venv/pytest-%: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ "pytest==$*.*"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/ready: pyproject.toml
	@echo "Setting up .venv (PyTorch is large: some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

.PHONY: demo test test-versions lint
