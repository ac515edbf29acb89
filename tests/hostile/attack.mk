# Included by the Makefile. Attacks that take minutes; the short ones are part of `make test`.
#     make attack ROUNDS=200 SEED=7
.PHONY: attack

ROUNDS ?= 40

attack: $(VENV)/.dev ## Attack the server for minutes: floods, storms, random handlers and clients
	@HOSTILE_ROUNDS=$(ROUNDS) $(if $(SEED),HOSTILE_SEED=$(SEED)) $(BIN)/python -m pytest tests/hostile -m attack
