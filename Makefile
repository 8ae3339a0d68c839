# One set of commands for people and CI. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?=
ARGS   ?=

BIN   := $(VENV)/bin
LOCKS := .ci/requirements
PIP    = $(BIN)/python -m pip --disable-pip-version-check --quiet
SERVE  = $(BIN)/comporta serve $(if $(CONFIG),--config $(CONFIG)) $(ARGS)
CODE   = $(wildcard comporta proxy providers policies bench loadtests tests docs/examples)
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test coverage check format bench faults fuzz load soak chaos bench-check bench-layers bench-policies performance-doc lock wheel system clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed-run ## install what is locked and start the gateway (CONFIG=file.yaml, ARGS="--listen 127.0.0.1:9000")
	@exec $(SERVE)

demo: $(VENV)/.installed-dev ## start it, stream one chat through the official OpenAI SDK, stop it; no key needed
	@$(BIN)/python docs/examples/demo.py

test: $(VENV)/.installed-dev ## every test, two modules at a time (ARGS="tests/policies -k retry" for some)
	$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist loadfile)

coverage: $(VENV)/.installed-dev ## the same with branch coverage, of the servers that tests start too: twice the processor time
	$(BIN)/python -m pytest --cov --numprocesses 2 --dist loadfile $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, import order, Dockerfile, locks
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	@! grep -nE '://|^ *-(i|f|-index-url|-extra-index-url|-find-links)' $(LOCKS)/*.txt || { echo "a lock names a host: run 'make lock'"; exit 1; }

format: $(VENV)/.installed-dev ## rewrite the code as ruff would have it
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.installed-dev ## CPU a request and a chunk, against nginx in the same run
	$(BIN)/python -m bench.overhead $(ARGS)

bench-check: $(VENV)/.installed-dev ## measure shortly, compare with bench/results/baseline.json, fail past the margin (ARGS=--keep: a new baseline)
	$(BIN)/python -m bench.check $(ARGS)

bench-layers: $(VENV)/.installed-dev ## where the time of a request and of a chunk goes, layer by layer
	$(BIN)/python -m bench.layers $(ARGS)

load: $(VENV)/.installed-dev ## load a gateway with simulated providers; status 1 past loadtests/slo.yaml (ARGS="streaming --rate 100 --seconds 60")
	$(BIN)/python -m loadtests $(ARGS)

soak: $(VENV)/.installed-dev ## mixed traffic, cancels and faults for SOAK_SECONDS (600): nothing grows, no request is lost
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m loadtests.soak $(ARGS)

bench-policies: $(VENV)/.installed-dev ## what each policy costs a request, in microseconds
	$(BIN)/python -m bench.policies $(ARGS)

performance-doc: $(VENV)/.installed-dev ## write docs/performance.md from bench/results/
	$(BIN)/python -m bench.performance

faults: $(VENV)/.installed-dev ## run the tests of the fault matrix and write their table into docs/faults.md
	$(BIN)/python -m tests.e2e.fault_table

fuzz: $(VENV)/.installed-dev ## feed nonsense to everything that reads bytes from outside, for FUZZ_SECONDS (600)
	$(BIN)/python -m tests.fuzz

chaos: $(VENV)/.installed-dev ## 5,000 mixed requests to providers that fail by chance (CHAOS_REQUESTS, CHAOS_SEED)
	CHAOS_REQUESTS=$(or $(CHAOS_REQUESTS),5000) $(BIN)/python -m pytest -q -s tests/e2e/test_chaos.py

lock: $(BIN)/python ## resolve the dependencies again and write the locks (ARGS=--upgrade for the newest)
	$(PIP) install uv
	$(COMPILE) $(ARGS) pyproject.toml --group dev -o $(LOCKS)/dev.txt
	$(COMPILE) pyproject.toml --constraint $(LOCKS)/dev.txt -o $(LOCKS)/run.txt
	$(COMPILE) --constraint $(LOCKS)/dev.txt --group build -o $(LOCKS)/build.txt

wheel: $(VENV)/.installed-dev ## build the wheel into dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

system: ## install what the tests and the bench call beside Python (Debian, as root)
	@.ci/system

clean: ## remove everything that these commands made
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "comporta needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# An install is done again when its lock or the project's own metadata changes.
$(VENV)/.installed-run: $(BIN)/python $(LOCKS)/run.txt $(LOCKS)/build.txt pyproject.toml
	$(PIP) install --require-hashes -r $(LOCKS)/run.txt -r $(LOCKS)/build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(LOCKS)/dev.txt pyproject.toml
	$(PIP) install --require-hashes -r $(LOCKS)/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed-run
