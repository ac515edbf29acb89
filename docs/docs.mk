# The documentation site: MkDocs with Material, every warning an error, nothing loaded from elsewhere.
.PHONY: docs docs-serve

$(VENV)/.docs: pyproject.toml $(VENV)/.run
	@echo "installing the documentation's generator"
	@$(PIP) install -e '.[cli,speed,docs]'
	@touch $@

# Material warns at every start about a MkDocs 2 that the extra `docs` excludes. Without INFO (--quiet) MkDocs
# would not count warnings, and --strict would be without effect.
docs: $(VENV)/.docs ## Build the documentation into site/, warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "built site/index.html"

docs-serve: $(VENV)/.docs ## Serve the documentation on port 8080 while you write it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --livereload --dev-addr 127.0.0.1:8080
