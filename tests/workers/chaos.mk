# Included by the Makefile. Workers that restart, die and hang under load, for minutes; the short forms are part
# of `make test`.
#     make chaos ROLLS=5
.PHONY: chaos

ROLLS ?= 20

chaos: $(VENV)/.dev ## Restart, kill and stop workers under load for minutes
	@CHAOS_ROLLS=$(ROLLS) $(BIN)/python -m pytest tests/workers -m chaos -s
