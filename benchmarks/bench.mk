# Included by the Makefile. The contenders live in benchmarks/.venv and benchmarks/node_modules.
.PHONY: bench bench-redis bench-quick bench-smoke bench-micro bench-tables bench-clean

BENCH := benchmarks/.venv/bin/python

benchmarks/.venv/.installed: benchmarks/requirements.txt benchmarks/package.json
	@echo "installing the contenders into benchmarks/.venv"
	@PYTHON="$(PYTHON)" benchmarks/install
	@touch $@

bench: benchmarks/.venv/.installed ## Measure against the peers (under 20 minutes)
	@$(BENCH) -m benchmarks --minutes 19 --json benchmarks/results/latest.json --charts benchmarks/results/charts

bench-redis: benchmarks/.venv/.installed ## Measure rooms over Redis against the peers (6 minutes)
	@$(BENCH) -m benchmarks.redis_rooms --json benchmarks/results/redis_rooms.json
	@$(BENCH) -m benchmarks.sizing --costs benchmarks/results/redis_rooms.json --chart benchmarks/results/charts

bench-quick: benchmarks/.venv/.installed ## A look at every row, one short round each
	@$(BENCH) -m benchmarks --quick

bench-smoke: benchmarks/.venv/.installed ## What CI runs: numbers must come out
	@$(BENCH) -m benchmarks echo --rounds 1 --seconds 1

bench-micro: benchmarks/.venv/.installed ## Time the hot paths by themselves
	@$(BENCH) -m benchmarks.micro --fast

bench-tables: benchmarks/.venv/.installed ## Write the README's chart and the docs' table from the last run
	@$(BENCH) -m benchmarks.tables benchmarks/results/latest.json

bench-clean: ## Remove the contenders and what was built and measured
	@rm -rf benchmarks/.venv benchmarks/node_modules benchmarks/.build benchmarks/results
