"""Mounts are tried on the transports of the server's own tests."""

from __future__ import annotations

from tests.server.conftest import contexts, kind

__all__ = ["contexts", "kind"]
