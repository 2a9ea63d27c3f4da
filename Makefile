# Two commands for a fresh clone: `make quickstart` runs the embedded study, `make test` runs all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: quickstart test lint types wheel docs clean

quickstart: $(VENV)/.installed
	$(BIN)/qtarget quickstart

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	mkdir -p build/types && ln -sfn ../.. build/types/qtarget
	MYPYPATH=build/types $(BIN)/mypy -p qtarget

# The site, strict: a warning fails it. Needs no network.
docs: $(VENV)/.installed-dev
	$(BIN)/sphinx-build -W --keep-going -q -d build/doctrees docs build/docs

# The wheel, installed where nothing of this checkout can be seen.
wheel: $(VENV)/.installed-dev
	rm -rf build/wheel && $(BIN)/python -m build --wheel --outdir build/wheel .
	rm -rf build/clean && $(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt build/wheel/*.whl
	cd / && $(CURDIR)/build/clean/bin/qtarget --help > /dev/null && $(CURDIR)/build/clean/bin/qtarget presets > /dev/null

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.installed
