# `make` prints the targets. Needs make and Python 3.11 or newer, nothing else.
#
#   PYTHON      the interpreter the environment is made from      (make PYTHON=python3.12 ...)
#   PIP_ARGS    more arguments for pip install                    (an index for CPU wheels, say)
#   ARGS        more arguments for the command a target runs      (make reproduce ARGS="--help")
#   LOCK        a lock file: install what it names, hashes checked (make test LOCK=.ci/requirements.lock)

PYTHON   ?= python3
PIP_ARGS ?=
ARGS     ?=
WORKERS  ?= 2

VENV := .venv
BIN  := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help install install-dev reproduce figures notebooks test coverage test-slow lint types layers audit \
        architecture format constraints lock clean distclean

help:  ## print the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | \
	    while IFS="$$(printf '\t')" read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done

# --- the environment ---------------------------------------------------------------------------
# A stamp is younger than what it was installed from, so an unchanged environment costs nothing.

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
	    { echo "make: no interpreter called '$(PYTHON)'; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and lgn_analysis needs 3.11 or newer; name one: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-run: pyproject.toml constraints.txt | $(VENV)/.created
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[mnist5k]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.created
ifdef LOCK
	$(BIN)/python -m pip install $(PIP_ARGS) --require-hashes --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[test,docs,notebooks,mnist5k]'
endif
	@touch $@ $(VENV)/.installed-run

install: $(VENV)/.installed-run  ## make .venv and install the package in it

install-dev: $(VENV)/.installed-dev  ## the same, with the test tools and Jupyter

# --- results -----------------------------------------------------------------------------------

reproduce: $(VENV)/.installed-run  ## run every experiment, draw the figures, write the report
	$(BIN)/lgn-analysis reproduce $(ARGS)

figures: $(VENV)/.installed-run  ## make figures, ledger, report and the README's table from the CSVs
	$(BIN)/python figures/make_figures.py $(ARGS)

notebooks: $(VENV)/.installed-dev  ## execute the notebooks in place
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

architecture: $(VENV)/.installed-dev  ## draw the floors of the package from its imports
	$(BIN)/python docs/architecture.py

# --- checks ------------------------------------------------------------------------------------
# One thread a worker: two processes that each start a thread per core are slower than one.

# Kernels are compiled before, once, and not by every worker.

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

test: lint types layers  ## lint, types, import contract, doctests and fast tests
	$(BIN)/python -c "from lgn_analysis.experiments.sweep.compilation import PARTS, compile_kernels; compile_kernels(PARTS)"
	$(PYTEST) $(ARGS)

coverage: $(VENV)/.installed-dev  ## the fast tests again, and which lines they run: at least 90 %
	$(PYTEST) --cov=lgn_analysis --cov-fail-under=90 $(ARGS)

test-slow: $(VENV)/.installed-dev  ## the tests that take long
	$(PYTEST) -m slow $(ARGS)

lint: $(VENV)/.installed-dev  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev  ## mypy
	$(BIN)/mypy

layers: $(VENV)/.installed-dev  ## import-linter: imports only go down the staircase
	$(BIN)/lint-imports

audit: $(VENV)/.installed-dev  ## licences, undeclared and unused dependencies, pins and hashes
	$(BIN)/python -m pip check
	$(BIN)/python .ci/audit.py

format: $(VENV)/.installed-dev  ## let ruff sort imports, mend and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# --- upkeep ------------------------------------------------------------------------------------
# The pins follow the environment, not the other way round: to move on to newer releases, empty
# constraints.txt, `make distclean test`, and then `make constraints`.

constraints: $(VENV)/.installed-dev  ## pin what .venv holds in constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable \
	       | grep -vE '^(setuptools|torchvision|triton|nvidia-|cuda-|-e |#)' \
	       | sed -E 's/^([^=]+==[^+]+)\+.*/\1/' | LC_ALL=C sort -f; } > constraints.txt.new
	mv constraints.txt.new constraints.txt
	@touch $(VENV)/.installed-dev $(VENV)/.installed-run

lock: $(VENV)/.installed-dev  ## write .ci/requirements.lock, the archives of CI with their hashes
	$(BIN)/python .ci/lock.py

clean:  ## remove caches and build outputs
	rm -rf build dist *.egg-info .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache \
	    .import_linter_cache .hypothesis
	find . -name $(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## the same, and .venv
	rm -rf $(VENV)
