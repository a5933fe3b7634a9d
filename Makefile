# Everything is installed inside the checkout: `.venv` holds what the lock names and nothing else, `.poetry` the tool that
# puts it there, with its downloads: a home may be missing or read-only. POETRY_CACHE_DIR lets several checkouts share them.
# The clients of `tests/clients` are installed like that by themselves: what they bring along must not mix with the
# server's, and of some not with the others'. aider has no release for Python 3.13 and newer.

PYTHON ?= python3
ARGS ?=

# Through `python -m`, because the scripts in `bin` name their interpreter by its full path and break when a checkout moves.
RUN := .venv/bin/python
POETRY := .poetry/bin/python scripts/poetry.py
NPM := $(RUN) scripts/npm.py
CLIENTS := tests/clients
CLIENT_VENVS := $(CLIENTS)/.venv $(CLIENTS)/openai2/.venv \
	$(shell $(PYTHON) -c 'import sys; print("$(CLIENTS)/aider/.venv" * (sys.version_info < (3, 13)))')
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=worksteal
PROGRAMS := $(CLIENTS) $(CLIENTS)/openai2

# Where the Python beneath an environment is gone, as after an upgrade, its stamp is no longer true.
$(foreach made,.venv .poetry $(CLIENT_VENVS),$(shell test -x $(made)/bin/python || rm -f $(made)/.installed))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run demo test clients soak isolation bench check audit format lock docker clean

help: ## Show this list
	@echo "Targets (each installs what it needs):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: .venv/.installed $(CLIENT_VENVS:=/.installed) $(CLIENTS)/node_modules/.installed ## Install the locked dependencies (PYTHON=python3.12 chooses; `make clean` to choose anew)

run: .venv/.installed ## Start the server with your Claude login (ARGS="9000 --host 0.0.0.0")
	@exec $(RUN) main.py $(ARGS)

demo: .venv/.installed ## Start the server on a stand-in for the model: no account needed (ARGS="9000")
	@exec $(RUN) main.py --demo $(ARGS)

# On up to four cores, each with servers of its own; who has nothing left to do takes over from the others. Clients that
# take long to begin are left to `make clients`. Parts of the suite can't reach the whole's coverage, so ARGS is without
# the gate, and in one process, which is easier to watch.
test: install ## Run the tests and hold the branch coverage (ARGS="tests/test_main.py -x": only these, ungated)
ifeq ($(strip $(ARGS)),)
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest $(PARALLEL) --ignore=$(CLIENTS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report
	$(RUN) scripts/offline.py $(RUN) -m pytest $(PARALLEL) -m "not slow_client" $(CLIENTS)
else
	$(RUN) -m pytest $(ARGS)
endif

# Where the machine allows it in a network without other machines, so that nobody's client can ask elsewhere.
clients: install ## Run the published clients, and write the table of what they said into COMPATIBILITY.md
	PYTHONPATH=$(CLIENTS) $(RUN) scripts/offline.py $(RUN) -m pytest -p clients_table $(PARALLEL) $(CLIENTS)

soak: .venv/.installed ## Play all kinds of clients at once, with faults, and print a table (ARGS=10: minutes)
	PYTHONPATH=. $(RUN) bench/soak.py $(ARGS)

isolation: .venv/.installed ## Play many clients against one server and two, and compare every request (ARGS=10000: so many turns)
	ISOLATION_TURNS=$(or $(strip $(ARGS)),2500) LOAD_SESSIONS=200 LOAD_TURNS=10 $(RUN) -m pytest -q --show-capture=no \
		tests/test_isolation.py tests/test_replicated_sessions.py

bench: .venv/.installed ## Measure, against bare Claude Code in the same run (ARGS="--base-url http://…/v1": another server)
	PYTHONPATH=. $(RUN) bench/bench.py $(ARGS)

check: .venv/.installed $(CLIENT_VENVS:=/.installed) ## Lint, check format, types, layers and locks; changes nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(foreach folder,$(PROGRAMS),$(RUN) -m mypy --config-file $(folder)/pyproject.toml &&) true
	$(RUN) -m pyright
	$(foreach folder,$(PROGRAMS),$(RUN) -m pyright --project $(folder) &&) true
	$(RUN) -m pytest -q tests/test_layers.py
	$(POETRY) . check --lock
	$(foreach venv,$(CLIENT_VENVS),$(POETRY) $(venv:/.venv=) check --lock &&) true

audit: .venv/.installed ## Look for faults of security: in our code, and known ones in the locked dependencies
	$(RUN) -m bandit --quiet --configfile pyproject.toml --recursive .
	$(RUN) scripts/audit.py $(ARGS)

format: .venv/.installed ## Mend what ruff can mend, and format
	$(RUN) -m ruff check --fix-only .
	$(RUN) -m ruff format .

# Not after `install`: a lock that no longer fits pyproject.toml is what this mends.
lock: .poetry/.installed .venv/bin/python $(CLIENT_VENVS:=/bin/python) ## Lock the newest versions that are allowed
	$(POETRY) . update --lock
	$(foreach venv,$(CLIENT_VENVS),$(POETRY) $(venv:/.venv=) update --lock &&) true
	$(MAKE) .venv/.installed
	$(NPM) $(CLIENTS) update --package-lock-only

docker: ## Build the image claude-wrapper:latest (ARGS="--no-cache")
	docker build --tag claude-wrapper:latest $(ARGS) .

clean: ## Remove all that was installed or made here
	rm -rf .venv .poetry .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* bench/results.json \
		$(CLIENT_VENVS) $(CLIENTS)/.npm $(CLIENTS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `sync` rather than `install`: it also removes what the lock doesn't name.
.venv/.installed: pyproject.toml poetry.lock .poetry/.installed | .venv/bin/python
	@echo "Installing the locked dependencies into .venv ..."
	@$(POETRY) . sync >.venv/install.log 2>&1 || { cat .venv/install.log >&2; exit 1; }
	@touch $@

$(CLIENT_VENVS:=/.installed): %/.venv/.installed: %/pyproject.toml %/poetry.lock .poetry/.installed | %/.venv/bin/python
	@echo "Installing Python clients for the tests into $(@D) ..."
	@$(POETRY) $* sync >$(@D)/install.log 2>&1 || { cat $(@D)/install.log >&2; exit 1; }
	@touch $@

# By the Node.js of `.venv`: the machine needs none.
$(CLIENTS)/node_modules/.installed: $(addprefix $(CLIENTS)/,package.json package-lock.json .npmrc) | .venv/.installed
	@echo "Installing Node clients for the tests into $(@D) ..."
	@$(NPM) $(CLIENTS) ci --silent
	@touch $@

.poetry/.installed: | .poetry/bin/python
	@echo "Installing Poetry into .poetry ..."
	@.poetry/bin/python -m pip install -qq --disable-pip-version-check 'poetry >=2.1,<3' poetry-plugin-pypi-mirror
	@touch $@

# Only Poetry's needs pip.
.venv/bin/python .poetry/bin/python $(CLIENT_VENVS:=/bin/python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "claude-wrapper needs Python 3.10 or newer, which '$(PYTHON)' is not. Name one: make PYTHON=python3.12 install" >&2; \
		exit 1; }
	@$(PYTHON) -m venv --clear $(if $(filter %.venv/bin/python,$@),--without-pip) $(@:/bin/python=)
