# Everything runs in .venv, made from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN = $(BIN)/python

# What exported pages draw with, which tests open in a browser.
RUNTIME = onnxruntime-web@1.30.0

.PHONY: help install web demo test lint format links docs lowest experiments-quick clean

help:
	@echo "make install   make $(VENV) with the pinned dependencies"
	@echo "make web       get onnxruntime-web for exported pages, from npm"
	@echo "make demo      train three one-step generators on real digits (90 s)"
	@echo "make test      run all tests"
	@echo "make lint      check style, names and types"
	@echo "make format    format the code"
	@echo "make links     renumber the links from docs to code, and check all links"
	@echo "make docs      run the tutorials and build the site, build/site/index.html"
	@echo "make lowest    run tests with the lowest versions that pyproject.toml allows"
	@echo "make experiments-quick   run every experiment in its short form"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --editable ".[test,lint]"
	@touch $@

web: node_modules/.$(RUNTIME)

node_modules/.$(RUNTIME):
	@if ! command -v npm > /dev/null; then \
	  echo "npm is absent: no page is exported, and its tests are skipped"; \
	elif npm install --silent --prefix . --no-save --no-package-lock \
	  --ignore-scripts $(RUNTIME); then touch $@; \
	else echo "npm brought no $(RUNTIME): tests of the page are skipped"; fi

demo: install
	$(RUN) experiments/demo/run.py --workdir=runs/demo

# Two workers fill two cores; the compilation cache spares the second worker,
# and the next run, what the first has compiled.
test: install web
	JAXFLOW_TEST_CACHE=.cache/xla $(RUN) -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

links: install
	$(RUN) docs/check_links.py --write

# Warnings are errors. The tutorials run while it is built; 5 minutes on 2 cores
# are theirs, more where others use the cores. What hangs is ended.
docs: $(VENV)/installed-docs
	timeout 1800 $(BIN)/mkdocs build
	$(RUN) docs/check_site.py

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --editable ".[docs]"
	@touch $@

lowest:
	.ci/lowest

experiments-quick: install
	@for run in experiments/*/run.py; do \
	  name=$$(basename $$(dirname $$run)); echo "== $$name --quick"; \
	  $(RUN) -m experiments.$$name.run --quick || exit 1; done

clean:
	rm -rf .cache .pytest_cache .ruff_cache build
