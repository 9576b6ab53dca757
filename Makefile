# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
# Each sets up what it needs and says first what it is going to install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
KERNEL_WORKERS ?= 2
PYTEST := $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help venv dev labs releases postgres demo demo-down test test-unit test-lab test-change test-kernel test-wheel test-pythons lint format docs bench bench-scale bench-kernel wheel clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"ipsecctl needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Another one: make PYTHON=python3.12 ...")'
	@labs/setup --python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

venv: $(VENV)/.run ## Make the virtual environment with ipsecctl in it

dev: $(VENV)/.dev ## ... and with what developers need

labs: ## Install what labs need: Docker Engine and Compose where there are none, and the lab image
	@labs/setup

releases: ## ... and the images of Debian's older strongSwans (6.0.1 of trixie, 5.9.8 of bookworm)
	@labs/setup --releases

postgres: ## What tests of the store need: a PostgreSQL server's programs, unpacked where none are installed
	@tests/store/get-postgres >/dev/null

demo: $(VENV)/.run labs ## The main job, start to proof, in a lab
	@$(BIN)/ipsecctl lab demo

demo-down: ## Remove all that `make demo` made and installed
	@if [ -x $(BIN)/ipsecctl ]; then $(BIN)/ipsecctl lab down clinic-dc; fi
	@labs/setup --down
	rm -rf $(VENV) $(VENV)-wheel out/clinic-dc

lint: $(VENV)/.dev ## Style, types, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: export PYTHONDONTWRITEBYTECODE :=
test: lint releases postgres test-wheel ## All tests but those of test-change and test-kernel: unit, property, golden, wheel, store on PostgreSQL, labs
	$(PYTEST) tests -m 'not change' -n $(WORKERS) --dist loadgroup

test-unit: export PYTHONDONTWRITEBYTECODE := # kept, the compiled tests save each worker seconds in the next run
test-unit: export IPSECCTL_TEST_QUICK ?= 1
test-unit: $(VENV)/.dev ## What needs no Docker and no PostgreSQL, without what waits for seconds, with a quarter of the examples of `make test`
	$(PYTEST) tests -m 'not lab and not postgres and not slow' -n $(WORKERS) --dist worksteal

test-lab: $(VENV)/.dev releases ## What runs on real strongSwan
	$(PYTEST) tests -m lab -n $(WORKERS) --dist loadgroup

test-change: $(VENV)/.dev releases ## What a change costs, drift, undo, a killed apply: long labs, 15 minutes and more
	$(PYTEST) tests -m change -n $(WORKERS) --dist loadgroup

test-kernel: $(VENV)/.dev releases ## The labs of this selection on Debian's kernel and its ESP, in a virtual machine
	@labs/vm/vm run env IPSECCTL_TEST_MACHINE_ENDS=1 IPSECCTL_PATIENCE=$${IPSECCTL_PATIENCE:-8} \
	    $(PYTEST) tests -m 'kernel and not change' -n $(KERNEL_WORKERS) --dist loadgroup --durations 25

wheel: $(VENV)/.dev ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .

test-wheel: export PYTHONDONTWRITEBYTECODE :=
test-wheel: export IPSECCTL_TEST_QUICK ?= 1
test-wheel: wheel ## Unit tests against the installed wheel
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv --without-pip $(VENV)-wheel
	$(BIN)/pip --python $(VENV)-wheel/bin/python install --quiet --disable-pip-version-check --no-deps dist/*.whl
	@# Its dependencies are those of $(VENV), which has them from the same pyproject.toml: to install them again takes longer than the tests.
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > "$$($(VENV)-wheel/bin/python -c 'import site; print(site.getsitepackages()[0])')/dependencies.pth"
	$(BIN)/pip --python $(VENV)-wheel/bin/python check --disable-pip-version-check
	cd tests && IPSECCTL_TEST_WHEEL=1 ../$(VENV)-wheel/bin/python -m pytest -c ../pyproject.toml --rootdir .. . -m 'not lab and not postgres and not slow' -n $(WORKERS) --dist worksteal

test-pythons: dev ## Unit tests with every Python from 3.11 on that this machine has
	@for v in 3.11 3.12 3.13 3.14; do \
	  if command -v python$$v >/dev/null && python$$v -c '' 2>/dev/null; then \
	    echo "== Python $$v"; rm -rf build/py$$v; python$$v -m venv build/py$$v && \
	    build/py$$v/bin/pip install --quiet --disable-pip-version-check '.[dev]' && \
	    build/py$$v/bin/pytest tests -m 'not lab and not postgres' -n $(WORKERS) -q || exit 1; \
	  else echo "== Python $$v: not on this machine"; fi; done

bench: $(VENV)/.dev ## Speed, as ratios within one run: start-up, validate, compile and render
	$(BIN)/python bench/bench.py

bench-scale: $(VENV)/.dev labs ## ... of 5,000 connections on one charon, and of 100 gateways; in labs, 5 minutes and more
	$(BIN)/python bench/scale.py

bench-kernel: $(VENV)/.dev labs ## ... and of tunnels on a kernel with ESP, in the virtual machine where this one's has none
	$(BIN)/python bench/kernel.py

docs: $(VENV)/.dev ## Generate docs/topology.md from the schema
	$(BIN)/python -m ipsecctl.topology.reference > docs/topology.md

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what was built here (not what was installed)
	rm -rf $(VENV) $(VENV)-wheel build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
