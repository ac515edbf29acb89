"""The parent of the workers: it binds the sockets, has signals, and ends when all workers have.

SIGINT, SIGTERM    every worker drains, with Close 1001; a second one cuts the drain short; a third kills
SIGHUP             a rolling restart, or as SIGTERM for a parent with a controlling terminal: it is closed
SIGTTIN, SIGTTOU   one worker more, one less

It alone reports to a service manager, for all workers.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import trio

from wsframework.crashes import unwrap_group
from wsframework.records import record
from wsframework.request import Address
from wsframework.server.systemd import service_manager
from wsframework.workers import watching
from wsframework.workers.admin import Admin, open_admin_socket
from wsframework.workers.crew import Failure
from wsframework.workers.launching import Launch
from wsframework.workers.listening import Listening, listen, listen_on_inherited
from wsframework.workers.page import Page
from wsframework.workers.rolling import Roller
from wsframework.workers.supervisor import StartFailed, Supervisor

__all__ = ["Plan", "run_parent", "usable_cores"]

_SPARE_SLOTS = 32
"""Twice as many as workers can be added: others drain while their successors serve."""


@attrs.frozen(kw_only=True)
class Plan:
    """What a parent is to do.

    Attributes:
        command: what starts a worker; see `Launch`.
        program: what the workers serve; see `Launch`.
        workers: how many there are.
        host: an address or name to listen on; None for every interface.
        port: a TCP port; 0 lets the system choose.
        unix_path: a unix socket's path, instead of host and port.
        unix_mode: the permissions of its file.
        sockets: listening ones, instead of all that; may be empty.
        on_ready: called with the addresses, once every worker serves.
        admin: the path of the admin socket; None for its own place.
        watch: calls the function that it gets when the program has changed, until cancelled, and follows
            Trio's start protocol. It is for development: the workers keep the terminal, may stop for a
            debugger, and may fail until the program is mended.
    """

    command: Sequence[str]
    program: Mapping[str, object]
    workers: int
    host: str | None
    port: int
    unix_path: str | None
    unix_mode: int | None
    sockets: Sequence[socket.socket] = ()
    on_ready: Callable[[tuple[Address, ...]], None]
    admin: str | None = None
    watch: Callable[..., Awaitable[object]] | None = None


def run_parent(plan: Plan) -> None:
    """Run the workers until a signal stops them.

    Raises:
        ListenError: an address cannot be listened on.
        StartFailed: a worker of the first round has ended before it served, or none can be started.
    """
    # Who ignores it does not learn how its children have ended, and a program inherits that.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        trio.run(_run, plan)
    except BaseExceptionGroup as group:
        # Made by our nurseries.
        raise unwrap_group(group) from None


async def _run(plan: Plan) -> None:
    if plan.sockets:
        listening = listen_on_inherited(plan.sockets)
    else:
        listening = await listen(plan.host, plan.port, plan.unix_path, plan.unix_mode)
    try:
        with open_admin_socket(plan.admin) as admin:
            await _supervise(plan, listening, admin)
    finally:
        listening.close()


async def _supervise(plan: Plan, listening: Listening, admin: socket.socket | None) -> None:
    try:
        page = Page.create(_SPARE_SLOTS + 2 * plan.workers)
    except OSError as error:
        why = f"cannot make the memory that workers share: {error.strerror or error}"
        raise StartFailed(Failure(why)) from None
    developing = plan.watch is not None
    launch = Launch(plan.command, plan.program, listening.sockets, page.fd, terminal=developing)
    manager = service_manager()
    where = f"on {', '.join(map(str, listening.addresses))}"

    def stopping() -> None:
        manager.stopping("Draining all workers")
        listening.close()

    def crew() -> str:
        count = len(supervisor.places)
        return f"{count} worker{'s' * (count != 1)} {where}"

    def rolled(begins: bool) -> None:
        if begins:
            manager.reloading(f"Replacing all workers {where}")
        else:
            manager.ready(crew())

    def resized() -> None:
        # During a restart, its end tells.
        if not roller.rolling:
            manager.status(crew())

    supervisor = Supervisor(launch, page, stopping)
    roller = Roller(supervisor, rolled, overlap=not developing)
    stuck_seconds = None if developing else watching.STUCK_SECONDS
    async with trio.open_nursery() as nursery:
        await nursery.start(_obey_signals, supervisor, roller)
        if admin is not None:
            nursery.start_soon(Admin(supervisor, roller, page).serve, admin)
        nursery.start_soon(watching.watch_workers, supervisor, page, stuck_seconds)

        def ready() -> None:
            plan.on_ready(listening.addresses)
            manager.ready(crew())
            supervisor.on_places = resized
            supervisor.start_soon(roller.run)
            fresh = functools.partial(watching.all_fresh, supervisor, page)
            nursery.start_soon(manager.feed_watchdog, fresh)

        async def mended() -> None:
            record(logging.INFO, "reload.waiting", hint="the program starts when its files have changed")
            await roller.wait_asked()

        if plan.watch is not None:
            # Before the program is imported: what changes from now on is noticed.
            await nursery.start(plan.watch, roller.ask)
        await supervisor.run(plan.workers, ready, mended if developing else None)
        nursery.cancel_scope.cancel(reason="all workers have ended")


async def _obey_signals(
    supervisor: Supervisor, roller: Roller, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGTTIN, signal.SIGTTOU]
    # Started by nohup, the parent is meant to outlive the terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    terminal = _has_terminal()
    stops = iter((supervisor.stop, supervisor.stop_now))
    with trio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        async for number in signals:
            record(logging.INFO, "server.signal", signal=signal.Signals(number).name)
            if number == signal.SIGTTIN:
                supervisor.add()
            elif number == signal.SIGTTOU:
                supervisor.remove()
            elif number == signal.SIGHUP and not terminal:
                roller.ask()
            else:
                next(stops, supervisor.kill)()


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal, which sends SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
