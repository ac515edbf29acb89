# Included by the Makefile. Workers that restart, die and hang under load, for minutes; the short forms are part
# of `make test`.
.PHONY: chaos

chaos: $(VENV)/.dev ## Restart, kill and stop workers under load for minutes
	@$(BIN)/python -m pytest tests/workers -m chaos -s
