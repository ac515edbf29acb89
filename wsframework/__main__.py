"""`python -m wsframework` is the command `wsframework`."""

from wsframework.cli import main

if __name__ == "__main__":
    main()
