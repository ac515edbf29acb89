"""Keep pytest out of the installed suite: it has test files of its own, in Python 2."""

collect_ignore = ["env", "reports"]
