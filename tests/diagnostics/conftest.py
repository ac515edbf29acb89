"""Both commands, called as in tests/cli."""

from tests.cli.conftest import command, own_process_state

__all__ = ["command", "own_process_state"]  # fixtures
