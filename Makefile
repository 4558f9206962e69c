# make demo | test | test-long | bench | docs | lint: each works on a fresh clone and makes .venv first.
#
#   PYTHON=python3.12          which Python makes .venv (3.11 or newer)
#   TORCH_INDEX_URL=URL        the index that has torch's CPU build. The plain pin brings the CUDA
#                              build on Linux, several GB, where the usual index is used.

PYTHON ?= python3
TORCH_INDEX_URL ?=
VENV := .venv
READY := $(VENV)/.ready
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-long bench docs lint format venv

demo: $(READY)
	@$(RUN) bash demo/run.sh

# Some tests start a Slurm, servers and ranks, and kill them, with other work on the machine: what fails
# is run once more, and pytest lists it under R.
test: $(READY)
	$(RUN) OMP_NUM_THREADS=1 python -m pytest --reruns 1 --numprocesses logical --maxprocesses 4 --dist worksteal

test-long: $(READY)
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -m long --reruns 1 --numprocesses logical --maxprocesses 2 --dist loadfile

bench: $(READY)
	$(RUN) python -m benchmarks.pretrain_step

docs: $(READY)
	$(RUN) PYTHONPATH=. python docs/reference/make.py
	$(RUN) zensical build --clean --strict

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(READY)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

venv: $(READY)

# The stamp is made last: an interrupted set-up is begun again.
$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) has no venv module (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PIP) install --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
