# `make demo` and `make test` do everything on a machine that has Python 3.11 or newer, make and git.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8888
TOKEN ?=
WORKERS ?= 2
SECONDS := 60
SEED ?= 1
FUZZ_SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt hatch_build.py scripts/install.py scripts/npm.py \
  js/package.json js/package-lock.json $(shell find js/src js/scripts -type f 2>/dev/null)
# Tests start hundreds of kernels; without bytecode files, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
NPM := $(BIN)/python scripts/npm.py
PYTEST := $(BIN)/python -m pytest -q
PYTHON_TESTS := tests --ignore=tests/browser --ignore=tests/notebooks -n $(WORKERS) --dist loadfile

.PHONY: help demo test tests test-js test-python test-notebooks test-browser system-packages check format coverage bench docs \
  faults fuzz audit lock fresh build hooks clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# --- environments -----------------------------------------------------------------------------------------------------

# In words that the oldest Python understands, before it reads a script that it may not.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	@mkdir -p $(VENV) && touch $@

$(VENV)/.demo: $(VENV)/.python $(SOURCES)
	@$(PYTHON) scripts/install.py demo
	@touch $@

$(VENV)/.dev: $(VENV)/.python $(SOURCES)
	@$(PYTHON) scripts/install.py dev
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PYTHON) scripts/install.py bench
	@touch $@

# jupyter-collaboration changes JupyterLab for everyone who has it installed, so it has an environment of its own.
$(VENV)/.collaboration: $(VENV)/.dev
	@$(PYTHON) scripts/install.py collaboration --into $(VENV)/collaboration
	@touch $@

js/node_modules/.package-lock.json: js/package-lock.json $(VENV)/.dev
	@test $@ -nt $< || { echo "Installing the page client's build tools into js/node_modules …"; $(NPM) ci; }
	@touch $@

system-packages: $(VENV)/.dev
	@$(BIN)/python scripts/system_packages.py

# --- commands ---------------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo  ## JupyterLab on the shared slider (PORT=, TOKEN= choose)
	@$(BIN)/python scripts/demo.py --port '$(PORT)' --token '$(TOKEN)'

test: system-packages test-js test-python test-notebooks test-browser  ## everything, with real servers, kernels and browsers (WORKERS= at once)

tests: test

test-js: js/node_modules/.package-lock.json  ## the page's client, in node
	@echo "Testing the page's client …"
	@$(NPM) test --silent

test-python: $(VENV)/.dev system-packages  ## the Python package, with real servers and kernels
	@echo "Testing the Python package …"
	@$(PYTEST) $(PYTHON_TESTS)

test-notebooks: $(VENV)/.dev  ## the example notebooks, with a server and without
	@echo "Testing the example notebooks with a server …"
	@$(PYTEST) -p tests.notebooks.with_server --nbval notebooks
	@echo "Testing the example notebooks without a server …"
	@$(PYTEST) --nbval notebooks

test-browser: $(VENV)/.dev $(VENV)/.collaboration system-packages  ## several people in real browsers (EBUS_BROWSER=firefox)
	@echo "Testing in the browser …"
	@$(PYTEST) -n $(WORKERS) --dist loadfile tests/browser

faults: $(VENV)/.dev  ## a minute of faults (SECONDS=3600 FAULTS=10000 SEED=), and what they did to the laws
	@$(BIN)/python -m tests.faults --seconds '$(SECONDS)' --seed '$(SEED)' $(if $(FAULTS),--faults '$(FAULTS)')

# atheris has wheels for few systems, so only this target installs it.
$(VENV)/.fuzz: $(VENV)/.dev
	@$(PYTHON) scripts/install.py fuzz
	@touch $@

fuzz: $(VENV)/.fuzz  ## the decoders under atheris, a minute each (FUZZ_SECONDS=)
	@mkdir -p $(VENV)/fuzz
	@for target in client_frames broker_frames values json addresses positions; do \
	  echo "Fuzzing $$target …"; mkdir -p $(VENV)/fuzz/$$target; \
	  $(BIN)/python -m tests.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=5 -rss_limit_mb=1024 \
	    -artifact_prefix=$(VENV)/fuzz/$$target- -verbosity=0 $(VENV)/fuzz/$$target || exit 1; \
	done

check: $(VENV)/.dev js/node_modules/.package-lock.json  ## linters and type checks
	@echo "Checking with ruff, mypy, codespell, zizmor, tsc and eslint …"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@git ls-files -z | xargs -0 $(BIN)/codespell
	@$(BIN)/zizmor --offline --quiet .github
	@$(NPM) run --silent check

audit: $(VENV)/.dev js/node_modules/.package-lock.json  ## known holes in the locked versions (asks the advisory databases)
	@$(BIN)/uv tool run pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off
	@$(NPM) audit

format: $(VENV)/.dev js/node_modules/.package-lock.json  ## put the code in its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(NPM) run --silent --if-present format

coverage: $(VENV)/.dev system-packages  ## the Python tests, slower, with a floor for the lines they reach
	@echo "Measuring the Python tests' coverage …"
	@$(PYTEST) $(PYTHON_TESTS) --cov --cov-report=term:skip-covered

bench: $(VENV)/.bench $(VENV)/.collaboration  ## every target beside its peers, as ratios
	@command -v redis-server > /dev/null || \
	  echo "redis-server is not installed, so its rows stay empty; the system's package manager has it."
	@$(BIN)/python -m tests.benchmarks

docs: $(VENV)/.dev  ## the pages that are made from the code
	@$(BIN)/python scripts/configuration.py

lock: $(VENV)/.dev  ## raise the versions in constraints.txt and js/package-lock.json
	@$(BIN)/python scripts/lock.py

fresh:  ## demo and test in a new minimal Debian root (as root; ONLY=demo or ONLY=test)
	@scripts/fresh.sh $(if $(ONLY),--only $(ONLY))

build:  ## the wheel and the source archive, in dist/
	@$(PYTHON) scripts/install.py build
	@$(BIN)/python -m build

hooks: $(VENV)/.dev js/node_modules/.package-lock.json  ## run the checks before each commit
	@$(BIN)/pre-commit install

clean:  ## remove everything that was built or installed
	@rm -rf $(VENV) dist js/node_modules js/dist js/types .demo .coverage
	@find ebus_jupyter/static -type f ! -name '.gitkeep' -delete
