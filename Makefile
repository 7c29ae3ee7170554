# One command to begin: make run. One before you push: make check test. `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run demo-codes demo-deadline test test-sqlite test-postgresql contract soak fuzz bench bench-attack bench-capture bench-crowd bench-inbox bench-keys bench-million bench-pages bench-paint bench-storm check check-html screenshots format lock words clean environment dev-environment bench-environment

# The first Python on this machine that is new enough; `make run PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
LIVES ?= 5000
SEED := $(or $(SEED),$(shell date +%s))
VAR := $(or $(STANDING_VAR),var)
OURS := app.py beginning.py case_file.py cli.py config.py law.py letters.py models.py money.py office.py passwords.py payments.py pictures.py privacy.py twin.py bench demo jobs sandbox tests translations views
# Recorded in the locks instead of the command that made them, which differs between machines.
export UV_CUSTOM_COMPILE_COMMAND := make lock

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: environment ## Start everything on this machine with a demonstration (PORT=8010 SANDBOX_PORT=12112, RESET=1 begins anew)
	@exec $(BIN)/python -m demo.run

demo-deadline: ## Let a case's deadline come now: make demo-deadline CASE=one-pledge-short
	@test -n "$(CASE)" || { echo "Say which case: make demo-deadline CASE=one-pledge-short"; exit 1; }
	@test -f "$(VAR)/run.env" || { echo "Standing does not run. Start it first, in another terminal: make run"; exit 1; }
	@set -a; . "$(VAR)/run.env"; exec $(BIN)/python -m flask --app app demo deadline "$(CASE)"

demo-codes: ## Print the second factors' digits of now, while make run runs in another terminal
	@test -f "$(VAR)/run.env" || { echo "Standing does not run. Start it first, in another terminal: make run"; exit 1; }
	@set -a; . "$(VAR)/run.env"; exec $(BIN)/python -m flask --app app demo codes

screenshots: dev-environment ## Take the pictures in docs/ anew, of what make run shows in another terminal
	@test -f "$(VAR)/run.env" || { echo "Standing does not run. Start it first, in another terminal: make run"; exit 1; }
	@set -a; . "$(VAR)/run.env"; exec $(BIN)/python -m tests.screenshots

# Tests wait for other processes most of the time, so a few files run side by side, one more than there are processors.
# All tests of one file share a house; which files begin first is said in tests/conftest.py.
SIDE_BY_SIDE := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: test-sqlite test-postgresql ## Run the whole suite, on SQLite and on PostgreSQL (make test ARGS="-k penny")

test-sqlite: dev-environment ## Run the whole suite on SQLite
	$(call run-tests,sqlite)

test-postgresql: dev-environment ## Run what uses a database on PostgreSQL, with a server of the tests' own
	$(call run-tests,postgresql)

# With ARGS there may be nothing to run on one of the two (pytest says 5); without, that is a failure. In CI up to three
# are looked at a second time by themselves, and named.
define run-tests
	@mkdir -p var; $(BIN)/python -m pytest $(SIDE_BY_SIDE) --database=$(1) --junit-xml=var/tests-$(1).xml $(ARGS) \
		|| { said=$$?; { [ -n "$(ARGS)" ] && [ $$said -eq 5 ]; } \
			|| { [ -n "$$CI" ] && [ $$said -eq 1 ] && $(BIN)/python -m tests.second_look $(1); }; }
endef

contract: dev-environment ## Ask the sandbox, and Stripe's test mode too, what we rely on (STRIPE_TEST_KEY=sk_test_...)
	@test -n "$$STRIPE_TEST_KEY" || echo "Without STRIPE_TEST_KEY only the sandbox is asked: see docs/stripe.md."
	@$(BIN)/python -m pytest tests/contract $(ARGS)

soak: dev-environment ## Let everything go wrong in 5,000 lives of a case (LIVES=100; SEED=... lives the same ones again)
	@echo "$(LIVES) lives, from the seed $(SEED)"
	@$(BIN)/python -m pytest tests/test_state_machine.py --examples=$(LIVES) --hypothesis-seed=$(SEED) \
		-o faulthandler_timeout=0 $(ARGS)

fuzz: dev-environment ## Send 50,000 requests by chance to every address, in every role (FUZZ=5000 SEED=1)
	@FUZZ=$(or $(FUZZ),50000) $(BIN)/python -m pytest -s -k by_chance tests/test_security_fuzz.py $(ARGS)

bench: bench-environment ## Measure what everybody reads, beside a bare Flask and nginx (needs wrk; ARGS="--rounds 1")
	@$(BIN)/python -m bench.speed $(ARGS)

bench-crowd: bench-environment ## Measure readers while a hundred pledge and Stripe is slow (needs nginx; ARGS="--seconds 6")
	@$(BIN)/python -m bench.crowd $(ARGS)

bench-capture: dev-environment ## Measure the deadline capture (make bench-capture ARGS="500 10000 --rate 100 --limit 100")
	@$(BIN)/python -m bench.capture $(ARGS)

bench-keys: dev-environment ## Measure how soon a moderator sees what a key did (ARGS=50)
	@$(BIN)/python -m bench.keys $(ARGS)

bench-inbox: bench-environment ## Measure how fast Stripe's news is taken in and worked on (ARGS="--at-once 1000")
	@$(BIN)/python -m bench.inbox $(ARGS)

bench-pages: dev-environment ## Measure the pages of a big house beside those of a small one (ARGS="--pledges 50000")
	@$(BIN)/python -m bench.pages $(ARGS)

bench-paint: bench-environment ## Measure how soon a reader on a slow line sees a case (needs Chromium)
	@$(BIN)/python -m bench.paint $(ARGS)

bench-storm: bench-environment ## Measure readers while somebody attacks the doors (needs nginx; ARGS="--only idle")
	@$(BIN)/python -m bench.storm $(ARGS)

bench-million: dev-environment ## Measure pages whose case has a million pledges beside the same with ten (ARGS="--many 100000")
	@$(BIN)/python -m bench.million $(ARGS)

bench-attack: dev-environment ## Try cards out on a case 20,000 times while people pledge (ARGS="2000 --supporters 10")
	@$(BIN)/python -m bench.attack $(ARGS)

# What runs where people are. Words that are taken for ready HTML (B704) are ruff's S704: each says why.
FOR_PEOPLE := $(filter-out bench demo sandbox tests translations,$(OURS))

check: dev-environment ## Lint, check the format and the types, lint the templates
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy --strict $(OURS)
	@$(BIN)/python -m djlint --lint --quiet templates sandbox/templates
	@$(BIN)/python -m bandit --quiet --recursive --severity-level medium --skip B704 $(FOR_PEOPLE)

check-html: dev-environment ## Put every page before the Nu checker, the W3C's validator (needs Java, and npm to get it)
	@$(BIN)/python -m pytest tests/test_valid_html.py $(ARGS)

format: dev-environment ## Write the format that make check asks for
	@$(BIN)/python -m ruff check --fix-only --quiet .
	@$(BIN)/python -m ruff format .

lock: dev-environment ## Renew requirements*.txt from pyproject.toml (make lock UPGRADE=--upgrade)
	@$(BIN)/python -m uv pip compile --quiet $(UPGRADE) $(LOCK) --output-file requirements.txt pyproject.toml
	@$(BIN)/python -m uv pip compile --quiet $(UPGRADE) $(LOCK) --output-file requirements-demo.txt --group demo \
		--constraint requirements.txt pyproject.toml
	@$(BIN)/python -m uv pip compile --quiet $(UPGRADE) $(LOCK) --output-file requirements-dev.txt --group dev \
		--constraint requirements-demo.txt pyproject.toml
	@$(BIN)/python -m uv pip compile --quiet $(UPGRADE) $(LOCK) --output-file requirements-bench.txt \
		--group pyproject.toml:bench --constraint requirements-dev.txt

# One lock for every Python and system that we support, with hashes, and silent about where it was made.
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links

words: dev-environment ## Collect what is to be translated into translations/, and compile what has been
	@$(BIN)/python -m translations

clean: ## Remove .venv and all data in var/
	@rm -rf .venv var .mypy_cache .pytest_cache .ruff_cache .hypothesis

environment: $(BIN)/python
	@$(call install,requirements-demo.txt)

dev-environment: $(BIN)/python
	@$(call install,requirements-dev.txt)

# What is measured runs on what an operator installs, in a place of its own, and not beside the tools of a developer.
bench-environment: dev-environment
	@$(call install,requirements-bench.txt)
	@cmp -s requirements.txt var/shipped/requirements.txt || { \
		echo "Installing requirements.txt into var/shipped ..."; rm -rf var/shipped; \
		$(BIN)/python -m venv var/shipped && $(BIN)/python -m uv pip install --quiet --compile-bytecode --require-hashes \
			--python var/shipped/bin/python -r requirements.txt && cp requirements.txt var/shipped/; }

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Standing needs Python 3.11 or newer, and there is none on the PATH."; exit 1; }
	@echo "Preparing .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "This Python can't make a .venv (Debian: apt install python3-venv)."; exit 1; }

# Install what a lock says, unless it was done already. One line shows how far pip is; its warnings are shown only
# when it fails. The copy of the lock in .venv is written last, so a cut-off installation is begun again.
define install
	cmp -s $(1) .venv/$(1) && exit 0; set -o pipefail; \
	total=$$(grep -c '==' $(1)); echo "Installing $$total packages of $(1) into .venv ..."; \
	if [ -t 1 ]; then end='\r'; else end=''; fi; \
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r $(1) 2> .venv/pip-said.txt \
		| awk -v end="$$end" '/^Collecting/ { n++; if (end) { printf "  %d %-40s" end, n, $$2; fflush() } }' \
		|| { cat .venv/pip-said.txt; exit 1; }; \
	cp $(1) .venv/$(1)
endef
