# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8888
TOKEN ?=
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml hatch_build.py scripts/npm.py js/package.json js/package-lock.json $(shell find js/src js/scripts -type f 2>/dev/null)
# `uv` installs in seconds what pip takes a minute for; where it can't be had, pip does.
install_into = $$(test -x $(BIN)/uv && echo env VIRTUAL_ENV=$(1) $(BIN)/uv pip || echo $(1)/bin/python -m pip) install --quiet
INSTALL = $(call install_into,$(VENV))

.PHONY: help demo docs test test-python test-js test-notebooks test-browser check format bench build clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(SOURCES)
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(SOURCES)
	$(INSTALL) -e '.[dev]'
	@touch $@

# With jupyter-collaboration installed JupyterLab is another one for everybody: it has an environment of its own.
$(VENV)/.collaboration: $(VENV)/.dev
	$(BIN)/python -m venv $(VENV)/collaboration
	EBUS_SKIP_JS=1 $(call install_into,$(VENV)/collaboration) -e '.[demo]' jupyter-collaboration
	@touch $@

js/node_modules/.package-lock.json: js/package-lock.json $(VENV)/.dev
	@test $@ -nt $< || $(BIN)/python scripts/npm.py ci
	@touch $@

demo: $(VENV)/.demo  ## JupyterLab on the shared slider (PORT=, TOKEN= choose)
	@$(BIN)/python scripts/demo.py --port '$(PORT)' --token '$(TOKEN)'

test: test-js test-python test-notebooks test-browser  ## everything, with real servers, kernels and browsers

test-python: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests --ignore=tests/browser --ignore=tests/notebooks

test-notebooks: $(VENV)/.dev  ## the example notebooks, with a server and without
	$(BIN)/python -m pytest -q -p tests.notebooks.with_server --nbval notebooks
	$(BIN)/python -m pytest -q --nbval notebooks

test-browser: $(VENV)/.dev $(VENV)/.collaboration  ## two people in real browsers
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --reruns 1 tests/browser

test-js: js/node_modules/.package-lock.json
	$(BIN)/python scripts/npm.py test

check: $(VENV)/.dev js/node_modules/.package-lock.json  ## linters and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/npm.py run check

format: $(VENV)/.dev  ## put the Python code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## the pages that are made from the code
	$(BIN)/python scripts/configuration.py

bench: $(VENV)/.dev $(VENV)/.collaboration  ## every target beside its peers, as ratios
	$(INSTALL) -e '.[bench]'
	@command -v redis-server || { apt-get update -q && apt-get install -y -q redis-server; } || echo 'no redis-server: its rows will fail'
	$(BIN)/python -m tests.benchmarks

build: $(VENV)/.made  ## the wheel and the source archive, in dist/
	$(INSTALL) build
	$(BIN)/python -m build

clean:  ## forget everything that was built or installed
	rm -rf $(VENV) dist js/node_modules js/dist js/types .demo
	find ebus_jupyter/static -type f ! -name '.gitkeep' -delete
