"""A rolling restart: replace all workers, one after the other, each new one before the old one goes.

    start      the new worker imports the App and enters its lifespans, beside the old one
    drain      the old one stops accepting, lets handshakes finish, and sends Close 1012 to its clients
    end        its process ends; then the next one is replaced

A new worker that does not start ends the restart. The old ones stay, and nobody is disconnected. One that
dies while others are replaced ends it too.

While a program is developed, the old worker ends when the new one has imported the App, and before it enters
the lifespans: two of them might need the same file or port.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import trio

from wsframework.records import record
from wsframework.workers.crew import Failure, Worker
from wsframework.workers.supervisor import Place, StartFailed, Supervisor

__all__ = ["Roller"]


class Roller:
    """Restarts a supervisor's workers on request.

    Args:
        supervisor: has the workers.
        on_rolling: called when a restart begins, with True, and when it has ended, with False.
        overlap: whether a new worker serves before the old one goes.

    Attributes:
        rolling: whether a restart is on its way.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        on_rolling: Callable[[bool], None] = lambda begins: None,
        *,
        overlap: bool = True,
    ) -> None:
        self.rolling = False
        self._on_rolling = on_rolling
        self._overlap = overlap
        self._supervisor = supervisor
        self._wanted = trio.Event()

    def ask(self) -> None:
        """Restart all workers; during a restart, once more after it.

        While a program is developed, a start that is on its way is given up: it may hang.
        """
        self._wanted.set()
        if not self._overlap:
            self._supervisor.give_up_starts()

    async def wait_asked(self) -> None:
        """Wait until a restart is asked for, in place of `run`: the caller starts a worker.

        Cancellation: what was asked for is left for the next call.
        """
        await self._wanted.wait()
        self._wanted = trio.Event()
        self._supervisor.next_generation()

    async def run(self) -> None:
        """Do what is asked for, until cancelled.

        Cancellation: a worker that was starting is told to stop.
        """
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            self.rolling = True
            self._on_rolling(True)
            try:
                await self._roll()
                # Not when the parent stops meanwhile: that has been told.
                self._on_rolling(False)
            finally:
                self.rolling = False

    async def _roll(self) -> None:
        supervisor = self._supervisor
        supervisor.next_generation()
        start = trio.current_time()
        replaced: list[Worker] = []
        record(logging.INFO, "roll.started", workers=len(supervisor.places))
        for place in list(supervisor.places):
            try:
                await self._replace(place, replaced)
            except StartFailed as error:
                if self._wanted.is_set() and not self._overlap:
                    return  # given up for the next one, or that mends it
                # Its traceback is in the record of that worker's end.
                count = len(replaced)
                record(logging.ERROR, "roll.aborted", workers=count, error=error.failure.line)
                return
        seconds = round(trio.current_time() - start, 3)
        record(logging.INFO, "roll.finished", workers=len(replaced), seconds=seconds)

    async def _replace(self, place: Place, replaced: list[Worker]) -> None:
        """Replace the worker of a place where that is needed, and wait for its end.

        Args:
            replaced: the new workers so far; gets this one too.

        Raises:
            StartFailed: it does not start, or one of those so far has died.
        """
        supervisor = self._supervisor
        # A place that is changing gets a worker of the new generation anyway.
        kept = place in supervisor.places
        if not kept or place.changing.locked() or place.worker.generation == supervisor.generation:
            return
        async with place.changing:
            end = None if self._overlap else functools.partial(self._end, place.worker)
            new = await supervisor.start_worker(end)
            dead = next((worker for worker in replaced if worker.died), None)
            if place not in supervisor.places or dead is not None:
                new.drain(restarting=True)
                if dead is not None:
                    why = f"worker {dead.number} died after it was ready: {dead.described_status}"
                    raise StartFailed(dead.failure or Failure(why))
                return
            old, place.worker = place.worker, new
            replaced.append(new)
        old.drain(restarting=True)
        await old.ended.wait()

    async def _end(self, worker: Worker) -> None:
        worker.drain(restarting=True)
        await worker.ended.wait()
