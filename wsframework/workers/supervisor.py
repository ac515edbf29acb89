"""Keep a number of workers at work: start them, replace those that die, end all of them.

Theory of operation
-------------------
A *place* is kept by one task: it has a worker, and gets another one when that worker is gone. A rolling
restart puts a new worker into each place while the old one still serves there. Each worker has a task that
follows it to the end of its process, whoever has its place meanwhile.

One worker starts at a time, so that a machine has to bear one start-up, and one error is logged if all of
them fail alike. Places whose workers die again and again take turns, too: together they cost what one does.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import signal
from collections.abc import Awaitable, Callable

import attrs
import trio

from wsframework.records import record
from wsframework.server.crowd import Figures
from wsframework.workers.crew import Failure, Worker
from wsframework.workers.launching import Launch
from wsframework.workers.page import Page

__all__ = ["Place", "StartFailed", "Supervisor"]

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
"""The pauses before the second start and the next ones, each twice the last."""

JITTER = 1.0
"""By how much of itself a pause may be longer, so that machines that fail together do not start together. A
start takes 0.4 seconds of CPU time, mostly for imports: at the longest pauses, less than 1 % of a core."""

GOOD_LIFE_SECONDS = 60.0
"""A worker that has served so long is replaced as if it had been the first that died."""


_TURN_SECONDS = 30.0
"""How long others wait for a start that takes long, or hangs, before they start beside it."""

_LONGEST_START_SECONDS, _LONGEST_START_FACTOR = 300.0, 5
"""How long a start may take: so long, or so many times as long as the slowest one before."""

_SIGNAL_SECONDS = 0.1
"""How much later than a worker the parent may learn of a signal that was sent to both."""


class StartFailed(Exception):
    """A worker has ended before it served.

    Attributes:
        failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line)
        self.failure = failure


@attrs.define(eq=False)
class Place:
    """A place for one worker.

    Attributes:
        worker: who has it.
        deaths: how many workers have died here shortly after each other.
        scope: around the task that keeps it.
        changing: held by who replaces the worker.
    """

    worker: Worker
    deaths: int = 0
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    changing: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def tries_for_long(self) -> bool:
        """Whether so many have died here that the pauses are the longest."""
        return _pause_after(self.deaths - 1) >= LONGEST_PAUSE_SECONDS


class Supervisor:
    """Keeps workers at work until it is told to stop.

    Args:
        launch: how a worker is started.
        page: the shared page.
        on_stopping: called when it begins to stop, before the workers are told.

    Attributes:
        most: how many places there can be: as many workers again may drain while their successors serve.
        on_places: called when there is a place more or less.
        places: for the workers that should serve, in order.
        workers: all whose process has not ended, by their number.
        counted: by workers that have ended, all together.
        generation: how many rolling restarts have begun.
        stopping: whether it has begun to stop.
        start_seconds: how long a start may take; None in the first round, where a service manager has its own
            limit, and nobody knows how long this App takes.
    """

    def __init__(self, launch: Launch, page: Page, on_stopping: Callable[[], None]) -> None:
        self.most = page.slots // 2
        self.on_places: Callable[[], None] = lambda: None
        self.places: list[Place] = []
        self.workers: dict[int, Worker] = {}
        self.counted = Figures()
        self.generation = 0
        self.stopping = False
        self.start_seconds: float | None = None
        self._launch = launch
        self._page = page
        self._on_stopping = on_stopping
        self._numbers = itertools.count(1)
        self._starting = trio.Lock()
        self._retrying = trio.Lock()
        self._failed_starts = 0
        self._failed_at = 0.0
        self._slowest_start = 0.0
        self._gives_up = False
        self._adding: list[trio.CancelScope] = []
        self._hurry = trio.Event()
        self._keeping = trio.CancelScope()
        self._keepers: trio.Nursery | None = None
        self._followers: trio.Nursery | None = None

    async def run(
        self,
        count: int,
        on_ready: Callable[[], None],
        before_retry: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Start the workers and keep them at work; after `stop`, wait for the end of all.

        Args:
            count: how many.
            on_ready: called once all of them serve.
            before_retry: called when a worker of this first round has ended before it served; then another
                one is started. None ends all of them.

        Raises:
            StartFailed: a worker of the first round has ended before it served; the others have ended too.

        Cancellation: the workers are left alone, and end as after the end of the parent: their clients get
            Close 1001. Only a bug of the parent cancels this.
        """
        failed: StartFailed | None = None
        self._gives_up = before_retry is None
        async with trio.open_nursery() as self._followers:
            with self._keeping:
                async with trio.open_nursery() as self._keepers:
                    try:
                        for _ in range(count):
                            await self._open_first_place(before_retry)
                    except StartFailed as error:
                        failed = error
                        self._keeping.cancel(reason="a worker does not start")
                    else:
                        self._limit_starts()
                        on_ready()
                    await trio.sleep_forever()
            # Without effect unless a worker does not start.
            self.stop()
        if failed is not None:
            raise failed

    # From outside

    def add(self) -> bool:
        """Add a worker, and return True, unless there are as many as can be.

        If it does not start, there are as many as before.
        """
        if self._keepers is None or self.stopping:
            return False
        if len(self.places) + len(self._adding) >= self.most:
            record(logging.WARNING, "workers.full", workers=self.most, hint="restart with --workers for more")
            return False
        scope = trio.CancelScope()
        self._adding.append(scope)
        self._keepers.start_soon(self._add, scope)
        return True

    def remove(self) -> bool:
        """Take one worker away, and return True, unless it is the only one.

        It is one that is being added, or does not serve; otherwise its clients get Close 1012.
        """
        if self.stopping or len(self.places) + len(self._adding) <= 1:
            return False
        if self._adding:
            self._adding.pop().cancel(reason="one worker less is wanted")
            return True
        idle = [place for place in self.places if place.worker.state != "ready"]
        place = (idle or self.places)[-1]
        self.places.remove(place)
        place.scope.cancel(reason="this place is given up")
        place.worker.drain(restarting=True)
        self.on_places()
        return True

    def stop(self) -> None:
        """Begin to stop: every worker drains, with Close 1001. Has an effect once."""
        if not self.stopping:
            self.stopping = True
            self._keeping.cancel(reason="the parent is stopping")
            self._on_stopping()
            for worker in self.workers.values():
                worker.drain(restarting=False)

    def stop_now(self) -> None:
        """Stop, and cut short what the workers are doing for that."""
        self.stop()
        for worker in self.workers.values():
            worker.stop_now()

    def kill(self) -> None:
        """Stop, and end every worker at once."""
        self.stop()
        for worker in self.workers.values():
            worker.send_signal(signal.SIGKILL)

    # For those who replace a worker

    def start_soon(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task that is cancelled when `stop` is called; once the first worker has been started."""
        assert self._keepers is not None
        self._keepers.start_soon(function, *arguments)

    def next_generation(self) -> None:
        """Let workers that start from now on count as newer than the others; those that wait start now."""
        self.generation += 1
        self._failed_starts = 0
        self._hurry.set()
        self._hurry = trio.Event()

    def give_up_starts(self) -> None:
        """Stop the workers that do not serve yet: what they have imported has changed."""
        for worker in self.workers.values():
            if worker.state == "starting":
                worker.failure = Failure("the program has changed meanwhile")
                worker.drain(restarting=True)

    async def start_worker(self, before_serving: Callable[[], Awaitable[object]] | None = None) -> Worker:
        """Start a worker, after those that others have asked for, and wait until it serves.

        Args:
            before_serving: called when it has imported the App, if it waits then; it serves afterwards.

        Raises:
            StartFailed: it has ended before that.

        Cancellation: tells the worker to stop.
        """
        worker: Worker | None = None
        try:
            async with self._starting:
                # A failure of long ago, such as one that was asked for, holds up nobody.
                await self._pause(self._failed_starts - 1, self._failed_at)
                worker = self._start()
                with trio.move_on_after(_TURN_SECONDS):
                    await worker.imported.wait()
            await worker.imported.wait()
            if before_serving is not None and not worker.ended.is_set():
                await before_serving()
            worker.proceed()
            await worker.settled.wait()
            if not worker.was_ready and worker.status == -signal.SIGTERM:
                # Every process may have got it, and then we are about to stop too.
                await trio.sleep(_SIGNAL_SECONDS)
        except trio.Cancelled:
            if worker is not None:
                worker.drain(restarting=True)
            raise
        if worker.failure is not None and not worker.was_ready:
            raise StartFailed(worker.failure)
        self._failed_starts = 0
        self._slowest_start = max(self._slowest_start, trio.current_time() - worker.started_at)
        if self.start_seconds is not None:
            self._limit_starts()
        return worker

    # Inside

    def _count_failed_start(self) -> None:
        self._failed_starts += 1
        self._failed_at = trio.current_time()

    def _limit_starts(self) -> None:
        self.start_seconds = max(_LONGEST_START_SECONDS, _LONGEST_START_FACTOR * self._slowest_start)

    def _start(self) -> Worker:
        number = next(self._numbers)
        taken = {worker.slot for worker in self.workers.values()}
        slot = next(slot for slot in itertools.count() if slot not in taken)
        try:
            if slot >= self._page.slots:
                raise OSError(f"there are {slot} already")
            process, channel = self._launch.start(number, slot)
        except OSError as error:
            failure = Failure(f"cannot start the process of a worker: {error.strerror or error}")
            record(logging.ERROR, "worker.died", worker=number, error=failure.line)
            self._count_failed_start()
            raise StartFailed(failure) from None
        worker = Worker(number, slot, self.generation, process, channel)
        worker.reported = self._gives_up and self.start_seconds is None
        self.workers[number] = worker
        record(logging.INFO, "worker.started", worker=number, pid=worker.pid)
        assert self._followers is not None
        self._followers.start_soon(self._follow, worker)
        return worker

    async def _follow(self, worker: Worker) -> None:
        await worker.follow()
        del self.workers[worker.number]
        self._add_up(self._page.read(worker.slot).counted)
        self._page.clear(worker.slot)
        # Here, before anyone who waits for the turn to start has had it.
        if not (worker.was_ready or worker.told):
            self._count_failed_start()

    def _add_up(self, last: Figures) -> None:
        before = self.counted
        self.counted = Figures(
            accepted=before.accepted + last.accepted,
            refused=before.refused + last.refused,
            messages_received=before.messages_received + last.messages_received,
            messages_sent=before.messages_sent + last.messages_sent,
        )

    async def _add(self, scope: trio.CancelScope) -> None:
        try:
            # What failed has been logged.
            with scope, contextlib.suppress(StartFailed):
                await self._open_place()
        finally:
            if scope in self._adding:
                self._adding.remove(scope)

    async def _open_first_place(self, before_retry: Callable[[], Awaitable[object]] | None) -> None:
        while True:
            try:
                return await self._open_place()
            except StartFailed:
                if before_retry is None:
                    raise
                await before_retry()

    async def _open_place(self) -> None:
        place = Place(await self._start_newest())
        self.places.append(place)
        self.on_places()
        assert self._keepers is not None
        self._keepers.start_soon(self._keep, place)

    async def _keep(self, place: Place) -> None:
        with place.scope:
            while True:
                worker = place.worker
                await worker.gone.wait()
                async with place.changing:
                    if place.worker is worker:
                        await self._refill(place)

    async def _refill(self, place: Place) -> None:
        """Put a new worker into the place of one that has gone without being told to."""
        if place.worker.served_seconds >= GOOD_LIFE_SECONDS:
            place.deaths = 0
        # One that was told to go has not failed: its successor has, while the program is developed.
        if not place.worker.told:
            place.deaths += 1
            await self._wait_to_retry(place)
        while True:
            try:
                place.worker = await self._start_newest()
                return
            except StartFailed:
                continue  # the next one starts after a longer pause

    async def _wait_to_retry(self, place: Place) -> None:
        """Pause after deaths; before one of the longest pauses, wait for those of others."""
        generation = self.generation
        async with self._retrying if place.tries_for_long else contextlib.nullcontext():
            if place.tries_for_long and self._works_again():
                place.deaths = 1
            # Else everybody was told not to wait, in a turn that was waited for.
            if self.generation == generation:
                await self._pause(place.deaths - 1, trio.current_time())

    def _works_again(self) -> bool:
        """Whether a worker lives longer now whose predecessors have died again and again."""
        return any(
            place.worker.state == "ready"
            and place.worker.served_seconds >= LONGEST_PAUSE_SECONDS / 2
            and place.tries_for_long
            for place in self.places
        )

    async def _start_newest(self) -> Worker:
        """Start a worker as `start_worker` does, and another one if a rolling restart has begun meanwhile.

        The restart leaves to us what does not serve yet, and this worker may have the old version.
        """
        while (worker := await self.start_worker()).generation != self.generation:
            worker.drain(restarting=True)
        return worker

    async def _pause(self, failures: int, since: float) -> None:
        """Wait after failures, counted from 0, the last of them at `since`; not if the number is negative."""
        if failures >= 0:
            pause = _pause_after(failures) * random.uniform(1, 1 + JITTER)
            with trio.CancelScope(deadline=since + pause):
                await self._hurry.wait()


def _pause_after(failures: int) -> float:
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 20))
