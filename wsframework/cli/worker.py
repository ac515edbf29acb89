"""The program of a worker: `python -m wsframework.cli.worker`, which only the parent starts.

Its options are for readers of `ps`. What to serve comes over the channel.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import attrs

from wsframework.authority import host_list
from wsframework.cli.importing import load_app, own_traceback
from wsframework.cli.logs import LogFormat, LogLevel, crashes_logged, set_up_logging
from wsframework.cli.options import adjust
from wsframework.cli.tls import server_context
from wsframework.crashes import unwrap_group
from wsframework.errors import ConfigurationError
from wsframework.records import describe
from wsframework.server.listeners import hosts_on_loopback
from wsframework.workers.rooms import warn_of_local_rooms, warn_of_local_sessions
from wsframework.workers.worker import Assignment, serve_as_worker, take_assignment

__all__ = ["Program", "main"]


_DRAIN_SECONDS = 1.0
"""The longest drain of a program that is developed: who has changed it waits."""


@attrs.frozen(kw_only=True)
class Program:
    """What workers serve: the options of `run`, as JSON knows them.

    Attributes:
        target: `module:app`.
        local_host: what the parent listens on, unless that is a unix socket.
        allow_host: as the option of that name, like the rest.
        reload: whether it is developed, and restarted when its files change.
    """

    target: str
    local_host: str | None
    allow_host: list[str]
    trusted_proxy: list[str]
    proxy_field: list[str] | None
    proxy_protocol: bool
    log_level: str
    log_format: str
    max_age: float | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    reload: bool = False
    access_log: bool = False


def main() -> None:
    """Serve as a worker."""
    parser = argparse.ArgumentParser(description="A worker of `wsframework run --workers`.")
    parser.add_argument("target")
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True)
    options = parser.parse_args()
    try:
        assignment = take_assignment(options.channel)
    except EOFError:
        sys.exit(1)  # the parent is gone
    program = Program(**assignment.program)
    # First, so that what the module logs while it is imported has the same form.
    set_up_logging(LogLevel(program.log_level), LogFormat(program.log_format), options.worker)
    try:
        with crashes_logged():
            _serve(assignment, program)
    except ConfigurationError as error:
        cause = error.__cause__
        assignment.fail(str(error), "" if cause is None else own_traceback(cause), mistake=True)
        sys.exit(2)
    finally:
        assignment.close()


def _serve(assignment: Assignment, program: Program) -> None:
    cert, key = (None if file is None else Path(file) for file in (program.ssl_cert, program.ssl_key))
    context = server_context(cert, key)
    warn_of_local_rooms(assignment.slot)
    warn_of_local_sessions(assignment.slot)
    app = load_app(program.target)
    adjust(app, program.trusted_proxy, program.proxy_field, program.max_age, access_log=program.access_log)
    if program.reload:
        app.timeouts = attrs.evolve(app.timeouts, drain=min(app.timeouts.drain, _DRAIN_SECONDS))
        assignment.wait_to_serve()
    local = () if app.allowed_hosts is not None else hosts_on_loopback(program.local_host)
    start = functools.partial(
        app.serve,
        sockets=assignment.listeners,
        crowd=assignment.slot,
        ssl=context,
        proxy_protocol=program.proxy_protocol,
        allow_hosts=(*local, *(host_list(program.allow_host) or ())),
    )
    try:
        serve_as_worker(assignment, start, app.timeouts)
    except ConfigurationError:
        raise
    except Exception as error:
        assignment.fail(describe(unwrap_group(error)))
        raise


if __name__ == "__main__":
    main()
