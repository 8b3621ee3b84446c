# make demo: the full workflow on the example project; make test: all tests. Both set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
FAST = $(PYTEST) -m "not slow and not external"
MANNERS := tests/plugin/test_manners.py tests/plugin/test_start.py

demo: .venv/ready
	$(BIN)/python docs/demo.py

# The fast tests and those marked slow: within 15 minutes on 2 cores.
test: .venv/ready
	$(PYTEST) -m "not external"

# Those that take at most a few seconds each.
fast: .venv/ready
	$(FAST)

# What depends on more than this repository, and every property with many new examples: docs/external.md has the last figures.
external: .venv/ready
	$(PYTEST) -m "external or hypothesis" --hypothesis-profile fuzz

# No variable that a CI service, a shell or git sets changes a test. Here each inner run of pytest has its own process, as
# it has for users; in the other targets, runs of fast tests share one that has imported PyTorch.
test-hostile: .venv/ready
	CI=true BUILD_NUMBER=1 GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=/nonexistent/x GITHUB_WORKSPACE=/nonexistent \
		CI_PROJECT_DIR=/nonexistent GIT_DIR=/nonexistent GIT_WORK_TREE=/nonexistent \
		FORCE_COLOR=1 TTY_COMPATIBLE=1 TTY_INTERACTIVE=1 COLUMNS=20 DEFUSE_STORE=/nonexistent DEFUSE_CORRECT=1 \
		DEFUSE_SEED=notanumber DEFUSE_DISCOVER=perhaps DEFUSE_BOUNDS=min_accuracy=2 DEFUSE_REPORT=/nonexistent/r.html \
		PYTEST_ADDOPTS="--color=yes --defuse-device=cuda:9" $(FAST) --runpytest subprocess

# The fast tests with the newest versions of all dependencies.
test-newest: .venv/ready
	$(BIN)/python .ci/newest.py

# The fast tests with the oldest versions that pyproject.toml allows, and on other Pythons: by hand, it downloads much.
matrix:
	.ci/matrix

# The plugin on the oldest minor version of pytest that is supported, and on those since; constraints.txt has a newer one.
test-versions: $(addprefix .venv/pytest-,8.4.2 9.0.3)
	for version in $^; do echo "$$version"; PYTHONPATH=$(CURDIR)/$$version $(BIN)/python -m pytest -q -n 2 $(MANNERS) || exit 1; done

.venv/pytest-%: .venv/ready
	$(PIP) install --no-deps --target $@ "pytest==$*"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs/settings.md, from the declarations of the settings.
reference: .venv/ready
	$(BIN)/python docs/reference.py

# Installs the versions in constraints.txt, hatchling included, so that .venv is the same next year.
.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv (PyTorch is large: some minutes the first time)"
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(PIP) install --editable ".[dev]"
	@touch $@

# The newest versions of everything, for each supported Python and platform; what pip's configuration rules out stays out.
constraints:
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	echo "hatchling editables" | tr " " "\n" | UV_CONSTRAINT="$$($(PYTHON) -m pip config --global get global.constraint 2>/dev/null)" \
		.venv/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-annotate \
		--custom-compile-command "make constraints" --output-file constraints.txt pyproject.toml -
	rm -r .venv/uv

# Changes the code at 300 places, one at a time; the tests must notice at least 90% of the changes. ONLY="PATTERN ..." runs
# the changes at these places again (an hour for all, on 2 cores).
mutants: .venv/ready .venv/mutants
	$(BIN)/python .ci/mutants.py $(foreach pattern,$(ONLY),"$(pattern)")

.venv/mutants: | .venv/ready
	$(PIP) install --target $@ cosmic-ray==8.7.0

.PHONY: demo test fast external test-hostile test-newest matrix test-versions lint reference constraints mutants
