# The Autobahn testsuite against our echo server. It installs itself into tests/conformance/env the first time
# and needs a Python 2.7 for that (see tests/conformance/install.py). FLAGS are the program's own, for example
#     make conformance FLAGS="--cases 12.1 --json report.json"
.PHONY: conformance conformance-short

conformance: $(VENV)/.dev ## Run all 517 cases of the Autobahn testsuite
	@$(BIN)/python -m tests.conformance --cases all $(FLAGS)

conformance-short: $(VENV)/.dev ## Run its cases but for the long compression ones, as CI does
	@$(BIN)/python -m tests.conformance --cases short $(FLAGS)
