"""The access log: one record for each plain HTTP request. It is an observer that a program asks for."""

from __future__ import annotations

import logging

from wsframework.observer import Observer
from wsframework.records import logger, record
from wsframework.request import Request

__all__ = ["AccessLog"]


class AccessLog(Observer):
    """Logs `request.answered` at level info, with method, path, client, status, size and time.

        app.observe(AccessLog())

    Without it, plain requests are logged at level debug only, because most of them are health checks. The
    query is left out, because there may be a token in it.
    """

    def request_answered(self, request: Request, status: int, body_bytes: int, seconds: float) -> None:
        """Log `request.answered`."""
        if not logger.isEnabledFor(logging.INFO):
            return
        record(
            logging.INFO,
            "request.answered",
            method=request.method,
            path=request.path,
            remote=request.remote,
            status=status,
            bytes=body_bytes,
            seconds=round(seconds, 3),
        )
