# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all the set-up that they need: a virtual environment in .venv, filled by pip.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready
# The other interpreters that the standard library's own suites run on, where they are found.
OTHERS := 3.11 3.12 3.13
# Processes that compute side by side, and that run tests of which many wait for other processes.
JOBS    := 2
TESTERS := 3
# How long `make sim` goes on, and how many worlds `make mutants` tries for each bug.
MINUTES := 5
SEEDS   := 200
# How many states `make crashes` opens.
STATES := 1000000

.PHONY: demo test check format lint types unit sim mutants crashes compat compat-running compat-others bench package clean help

help:
	@echo "make demo     index the standard library's words: plainly, on three replicas under fire, and with nothing configured"
	@echo "make test     all that the project checks about itself"
	@echo "make check    the quick part: format, lint, types, the shape of the code"
	@echo "make sim      simulated worlds on all cores, with a summary: make sim MINUTES=60"
	@echo "make mutants  plant bugs and count the simulated worlds until each is caught: make mutants SEEDS=200"
	@echo "make crashes  open what a power cut at any moment may leave of a storage: make crashes STATES=1000000"
	@echo "make compat   CPython's own suites for threading and queue, on each interpreter found"
	@echo "make bench    the measurable promises, measured; BENCH=--quick for a minute of it, BASE=REV against another revision"
	@echo "make clean    remove everything that was built or installed here"

# pip reads pyproject.toml, so its date decides whether the environment is up to date.
$(READY): pyproject.toml
	@found=$$(.ci/find-python) || { \
	    echo "No CPython 3.11 or later that can make virtual environments was found (Debian: apt install python3-venv)" >&2; \
	    exit 1; }; \
	[ -x $(PYTHON) ] || $$found -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(PYTHON) examples/demo.py

test: check unit compat

check: format lint types
	$(PYTHON) -m pytest -q tests/test_architecture.py tests/test_tidy.py

format: $(READY)
	$(PYTHON) -m ruff format --check .

lint: $(READY)
	$(PYTHON) -m ruff check .

types: $(READY)
	$(PYTHON) -m mypy

# The tests of one file share what they started, so a file stays in one process; simulated worlds share nothing, with
# planted bugs in them or without.
WORLDS := tests/mutants/test_mutants.py tests/sim/test_group.py

unit: $(READY)
	$(PYTHON) -m pytest -n $(TESTERS) --dist loadfile tests $(addprefix --ignore ,$(WORLDS))
	$(PYTHON) -m pytest -q -n $(JOBS) --dist load $(WORLDS)

sim: $(READY)
	$(PYTHON) -m tests.sim --minutes $(MINUTES) --jobs $(JOBS)

mutants: $(READY)
	$(PYTHON) -m tests.mutants --seeds $(SEEDS) --jobs $(JOBS)

crashes: $(READY)
	$(PYTHON) -m tests.storage.crashes --states $(STATES)

# Durable replicas under the running interpreter. What others bring is other suites, and some of those have hundreds of
# threads: they speak to a group in their own process, and only those of the locks to replicas.
compat: compat-running compat-others

compat-running: $(READY)
	$(PYTHON) -m pytest compat

compat-others: $(READY)
	@for version in $(OTHERS); do \
	    if $(PYTHON) -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')"; then continue; fi; \
	    if found=$$(.ci/find-python $$version); then \
	        $(MAKE) --no-print-directory .venv-$$version/.ready FOUND=$$found && \
	        echo "compat on CPython $$version" && \
	        .venv-$$version/bin/python -m pytest -q compat/stdlib --group local && \
	        .venv-$$version/bin/python -m pytest -q compat/stdlib/test_locks.py --group memory || exit 1; \
	    else \
	        echo "compat: CPython $$version is not on this machine, so it was not tried"; \
	    fi; \
	done

.venv-%/.ready: pyproject.toml
	[ -x .venv-$*/bin/python ] || $(FOUND) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --editable . pytest pytest-timeout
	@touch $@

bench: $(READY)
	$(PYTHON) -m benchmarks $(if $(BASE),--base $(BASE)) $(BENCH)

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find dthreading replicas tests compat examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
