# Requires Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Stamps of the installations: of what the local stack needs, and of everything.
LOCAL := .venv/.ready-local
READY := .venv/.ready
# Tests wait, too, so run one process more than there are processors. Each collects all tests, so not many more.
AT_ONCE ?= $(shell expr 2 + $$($(PYTHON) -c 'import os; print(os.cpu_count())'))
CLIENT := clients/typescript
NODE := .venv/.node
BROWSER := .venv/.browser
PROMTOOL := .venv/.promtool

# The tests start hundreds of processes; without bytecode files each of them would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up secrets test endurance test-all docs clients screenshots torture soak rolling release-fixture check bench dist version lock clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) $(NODE) $(BROWSER) $(PROMTOOL)  ## Create .venv with the versions pinned in requirements.lock

IS_PYTHON_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11) and "voicequeue needs Python 3.11 or newer, " + \
	sys.executable + " is " + sys.version.split()[0] + "; name another one, such as: make demo PYTHON=python3.12")

$(LOCAL): requirements-local.lock pyproject.toml voicequeue/version.py
	@$(PYTHON) -c '$(IS_PYTHON_NEW_ENOUGH)'
	@$(PYTHON) workers/local/install.py requirements-local.lock
	@touch $@

$(READY): requirements.lock pyproject.toml voicequeue/version.py
	@$(PYTHON) -c '$(IS_PYTHON_NEW_ENOUGH)'
	@$(PYTHON) workers/local/install.py requirements.lock
	@# Compile the tests and their imports once, instead of in each process of the first test run.
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true
	@touch $(LOCAL) $@  # it includes what the local stack needs

# For some tests, with Node from a wheel. Without access to npm's registry these tests fail with that reason.
$(NODE): tests/node/package-lock.json $(CLIENT)/package-lock.json | $(READY)
	@-$(BIN)/python -m tests.node && touch $@

# For the tests of the alert rules: Debian's package, unless it is installed.
$(PROMTOOL): | $(READY)
	@-$(BIN)/python -m tests.support.promtool && touch $@

# For the tests of pages: Debian's chromium, if no browser is installed and apt-get may install one.
$(BROWSER): | $(READY)
	@-$(BIN)/python -m tests.support.browser && touch $@

demo: $(LOCAL)  ## Run a dozen sample voices through the whole pipeline and show the results
	@$(BIN)/python -m workers.local.demo

up: $(LOCAL)  ## Run the whole stack on this machine until Ctrl-C
	@$(BIN)/python -m workers.local.up

secrets:  ## Generate the secrets of docker-compose.yml in .secrets; existing ones are kept
	@sh config/secrets.sh

# Without the plugin of tests that it does not run, each process starts a second sooner.
test: $(READY) $(NODE) $(BROWSER) $(PROMTOOL)  ## Run the tests of a change (a real Valkey and real workers, no Docker)
	$(BIN)/python -m pytest -n $(AT_ONCE) -m "not endurance" -p no:schemathesis

# Those that take long, and generated examples in a larger number.
endurance: $(READY) $(NODE) $(BROWSER) $(PROMTOOL)  ## Run the long tests that `make test` leaves out, and more generated examples
	$(BIN)/python -m pytest -n $(AT_ONCE) -m "endurance or hypothesis" --hypothesis-profile=thorough

test-all: test endurance  ## Run every test, as .ci/run does

docs: $(READY)  ## Build the documentation site in build/docs; fails on a broken link
	@$(BIN)/python -m config.reference
	@$(BIN)/python -m workers.gateway.reference
	@$(BIN)/python -m config.prometheus_rule
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean
	@echo "build/docs/index.html"

clients: $(READY) $(NODE)  ## Generate the types of the TypeScript client from the HTTP API
	@$(BIN)/python -m tests.tools.clients

screenshots: $(READY) $(BROWSER)  ## Retake the screenshots in docs/images
	@$(BIN)/python -m tests.tools.screenshots

torture: $(READY)  ## Kill processes at random, then audit jobs and charges: SECONDS=180 SEED=7 FAILOVERS=1 HOSTS=1
	@$(BIN)/python -m tests.tools.$(if $(HOSTS),hosts,torture) --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(if $(FAILOVERS),--failovers)

soak: $(READY)  ## Run a steady load, and print the slopes of memory and latency: SECONDS=3600 SEED=7
	@$(BIN)/python -m tests.tools.soak --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED))

rolling: $(READY)  ## Restart each process under load, each time with the other release: ROUNDS=10 JOBS=2000 SEED=1
	@$(BIN)/python -m tests.tools.rolling --rounds $(or $(ROUNDS),1) --jobs $(or $(JOBS),300) $(if $(SEED),--seed $(SEED))

release-fixture: $(READY)  ## Renew tests/releases, the previous release, from a tag: TAG=v0.1.0
	@$(BIN)/python -m tests.tools.release_fixture $(TAG)

check: $(READY)  ## Run the linter, the format check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# The library runs where its users' apps run.
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 --package voicequeue
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin --package voicequeue

bench: $(READY)  ## Measure the enqueue rate, CPU per job and memory; PARTS="capacity polling pacing keys preflight growth finished flight_ours processes peers flight realistic" for the rest
	@$(BIN)/python -m benchmarks $(PARTS)

dist: $(READY)  ## Build wheel, sdist and bill of materials in dist/, install the wheel, and enqueue a job with it
	@$(BIN)/python -m tests.tools.distribution

version: $(READY)  ## Print the version of this checkout, for VERSION_OF_BUILD of the image
	@$(BIN)/python -c 'from voicequeue.version import VERSION; print(VERSION)'

PIN := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links --no-header

lock:  ## Pin the dependencies (requires uv)
	$(PIN) --upgrade --extra local --extra worker --extra excel --extra s3 --extra otel --extra docs --extra checkout -o requirements.lock pyproject.toml
	$(PIN) --extra local --extra worker --extra excel --constraint requirements.lock -o requirements-local.lock pyproject.toml
	$(PIN) --extra worker --extra otel --constraint requirements.lock -o requirements-worker.lock pyproject.toml
	echo hatchling | $(PIN) --constraint requirements.lock -o requirements-build.lock -

clean:  ## Remove everything that make created
	rm -rf .venv .voicequeue tests/node/node_modules $(CLIENT)/node_modules $(CLIENT)/dist build dist .mypy_cache .ruff_cache .pytest_cache
