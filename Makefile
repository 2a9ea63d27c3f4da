# Two commands for a fresh clone: `make quickstart` runs the embedded study, `make test` runs all tests. These and all other
# targets but `test-latest` and `test-lowest` install the exact versions of lock.txt, which `make lock` renews.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := --constraint lock.txt
# One worker more than there are cores: a test of processes waits for them a sixth of the time.
WORKERS = $$($(1) -c 'import os; print((os.cpu_count() or 1) + 1)')
pytest = OMP_NUM_THREADS=1 $(1) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-quick test-latest test-lowest lint types wheel docs lock clean

quickstart: $(VENV)/.installed
	$(BIN)/qtarget quickstart

test: $(VENV)/.installed-dev
	$(call pytest,$(BIN)/python)

# What one runs while working: no servers, no browser, no whole studies, and yet every room.
test-quick: $(VENV)/.installed-dev
	$(call pytest,$(BIN)/python) -m 'not slow'

# The newest of everything that pyproject.toml admits, looked up at each call.
test-latest:
	[ -d build/latest ] || $(PYTHON) -m venv build/latest
	.ci/install build/latest/bin/python '--upgrade --upgrade-strategy eager' '--editable=.[dev]'
	$(call pytest,build/latest/bin/python) --count-deprecations --disable-warnings
	build/latest/bin/python .ci/versions.py

# The oldest: each direct dependency at its lower bound, whatever these need at its newest.
test-lowest: build/lowest/.installed
	$(call pytest,build/lowest/bin/python) --count-deprecations --disable-warnings
	build/lowest/bin/python .ci/versions.py

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
	rm -rf build/wheel && $(BIN)/python -m build --no-isolation --wheel --outdir build/wheel .
	rm -rf build/clean && $(PYTHON) -m venv build/clean
	.ci/install build/clean/bin/python '$(LOCKED)' build/wheel/*.whl
	cd / && $(CURDIR)/build/clean/bin/qtarget --help > /dev/null && $(CURDIR)/build/clean/bin/qtarget presets > /dev/null

# One torch for every number in the docs: another one rounds otherwise, so it is raised here, by hand. CUDA's packages are left
# out: each build of torch pins its own (PyPI's, other CUDA versions'), and the CPU's needs none.
TORCH := 2.13.0
lock: build/uv/bin/uv
	echo torch==$(TORCH) | $< pip compile --quiet --no-config --upgrade --universal --python-version 3.11 --extra dev \
	  --annotation-style line --custom-compile-command 'make lock' pyproject.toml - -o build/lock.txt
	sed -E '/^(nvidia-|cuda-|triton=)/d' build/lock.txt > lock.txt

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml lock.txt
	.ci/install $< '$(LOCKED)' --editable=.
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml lock.txt
	.ci/install $< '$(LOCKED)' '--editable=.[dev]'
	touch $@ $(VENV)/.installed

PYTHON_LOWEST ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 || echo $(PYTHON))
build/lowest/.installed: build/uv/bin/uv pyproject.toml
	[ -d build/lowest ] || $(PYTHON_LOWEST) -m venv build/lowest
	$< pip compile --quiet --no-config --resolution lowest-direct --python build/lowest/bin/python --extra dev pyproject.toml \
	  -o build/lowest/lock.txt
	.ci/install build/lowest/bin/python '--constraint build/lowest/lock.txt' '--editable=.[dev]'
	touch $@

# Beside .venv: a lock that cannot be installed must not stand in the way of the next one.
build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check install --quiet 'uv>=0.13'
