# Included by the Makefile. Workers that restart, die and hang under load, and what a Redis can do to rooms, for
# minutes; the short forms are part of `make test`. A seed that fails can be given again.
#     make chaos ROLLS=5 SECONDS=10 SEED=1234
.PHONY: chaos

ROLLS ?= 20
SECONDS ?= 10
SEED ?= $(shell date +%s)

chaos: $(VENV)/.dev ## Restart, kill and stop workers, and hurt a Redis, under load for minutes
	@CHAOS_ROLLS=$(ROLLS) CHAOS_SEED=$(SEED) $(BIN)/python -m pytest tests/workers -m chaos -s
	@echo 'faults of Redis: SECONDS=$(SECONDS) SEED=$(SEED)'
	@CHAOS_SECONDS=$(SECONDS) CHAOS_SEED=$(SEED) $(BIN)/python -m pytest \
		$(addprefix tests/engines/redis/test_,faults.py session_faults.py failover.py sentinel.py accounts.py volume.py vandals.py) \
		tests/workers/test_redis.py
