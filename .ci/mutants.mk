# Included by the Makefile. It changes the source in one place at a time and runs the tests: hours for everything.
#     make mutants SAMPLE=300 SEED=1
#     make mutants MODULES='wsframework/wire/*'
.PHONY: mutants

mutants: $(VENV)/.dev ## Change the source here and there, and see whether the tests notice (SAMPLE=300 SEED=1)
	@$(BIN)/python .ci/mutants.py $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(MODULES)
