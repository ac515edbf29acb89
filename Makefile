# Every target sets up what it needs; nothing has to be done first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip --quiet --disable-pip-version-check
PORT   ?= 3000
UNIT   := tests/test_*.py tests/wire tests/testing
# How many tests run at a time: many of them wait for something.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help run unit matrix test lint format types cover dist clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "wsframework needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing wsframework"
	@$(PIP) install -e '.[cli,speed]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@echo "installing the tools for tests, lint and types"
	@$(PIP) install -e '.[cli,speed,redis,dev,test,lint]'
	@touch $@

CHAT := ws://127.0.0.1:$(PORT)/ws/chat

run: $(VENV)/.run ## Start the chat on port 3000 (PORT=3001 for another)
	@echo 'A chat with a page, and on $(CHAT) without one. What to try in another terminal:'
	@echo '  $(BIN)/wsframework trace $(CHAT) --send Hello!     # from SYN to FIN'
	@echo '  $(BIN)/python examples/chat_client.py $(CHAT)     # the conversation in text'
	@echo "  node -e 'ws = new WebSocket(\"$(CHAT)\"); ws.onopen = () => ws.send(\"Hello!\");" \
		"ws.onmessage = (m) => console.log(m.data)'  # Node 22 or newer"
	@$(BIN)/wsframework chat --port $(PORT)

unit: $(VENV)/.dev ## Run the fast tests only: no foreign clients, virtual time
	@$(BIN)/python -m pytest $(UNIT)

matrix: $(BIN)/python ## Run the fast tests on every installed Python, and with the lowest declared versions
	@$(BIN)/python .ci/matrix.py $(if $(CI),--others) $(UNIT)

# Programs of tests start faster with bytecode, which here stands beside what is installed.
test: export PYTHONDONTWRITEBYTECODE =
test: export PYTHONPYCACHEPREFIX = $(abspath $(VENV))/bytecode
test: $(VENV)/.dev ## Run the whole test suite, four tests at a time (WORKERS=0 for one)
	@tests/clients/install
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.dev ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev ## Rewrite to the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev ## Check types (mypy strict)
	@$(BIN)/mypy

cover: $(VENV)/.dev ## Run the tests and report coverage of lines and branches
	@tests/clients/install
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

$(VENV)/.dist: pyproject.toml $(VENV)/.run
	@echo "installing the tools for packages"
	@$(PIP) install -e '.[cli,speed,dist]'
	@touch $@

dist: $(VENV)/.dist ## Build sdist and wheel, check them, and try each in a clean environment
	@BIN=$(BIN) .ci/dist

clean: ## Remove what the targets made
	@rm -rf $(VENV) .venv-3.* .venv-lowest dist .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov

-include benchmarks/bench.mk
-include tests/conformance/conformance.mk
-include tests/hostile/attack.mk
-include tests/workers/chaos.mk
-include docs/docs.mk
-include .ci/mutants.mk
