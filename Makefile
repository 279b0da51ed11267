# make repro   set up, then run the pipeline on the embedded phantoms
# make test    set up with the extras, then run the tests
# make bench   set up, then measure (a few minutes; benchmarks/README.md)
# make lint    style
# make setup   only the virtual environment
# make extra   what only some collections need: DICOM, MedMNIST's downloads

PYTHON ?= python3
VENV := .venv
# Stages are run by DVC as `python -m stages.NAME`, so the environment's python comes first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup extra repro test bench lint

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

extra: $(VENV)/.extra

$(VENV)/.extra: $(VENV)/.installed requirements-extra.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-extra.txt
	touch $@

# What the networks need; the networks side by side, JOBS at a time (default: see tools/cells.py); the rest.
repro: setup
	dvc repro prepare hierarchy
	python -m tools.cells $(if $(JOBS),--jobs $(JOBS))
	dvc repro

# Tests are divided among processes by file. WORKERS: how many at a time.
WORKERS ?= 2

test: extra
	python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

bench: setup
	python -m benchmarks.losses --threads 1
	python -m benchmarks.decisions
	python -m benchmarks.training

lint: setup
	ruff check .
	ruff format --check .
