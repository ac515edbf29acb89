"""Memory that the parent shares with its workers: one slot of counters for each.

The memory is a file without a name, which the workers inherit. Each slot is written by one worker's event
loop, and cleared by the parent when that worker has ended. There are no locks: every field has 8 bytes at a
multiple of 8, which the processor reads and writes as a whole. Two fields that are read together may be of
different moments.

    header    64 bytes: the layout's mark, the number of slots, whether workers have warned of local rooms,
              and of local sessions
    slot      256 bytes, so that two workers never write to one cache line; integers, or doubles where noted:
              phase, heartbeat (CLOCK_MONOTONIC in seconds, double), connections, websockets, accepted,
              refused, messages received, messages sent, loop lag (seconds, double), pid; then of the engines
              whether there are some (1: not connected, 2: connected), generation, queued, queued seconds
              (double), lag (seconds, double), lost, replayed, and gaps by reason
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Literal

import attrs

from wsframework.engines.running import REASONS, EngineFigures
from wsframework.server.crowd import Figures, Phase

if sys.platform == "linux":
    import fcntl

__all__ = ["FRESH_SECONDS", "Page", "Slot", "SlotFigures"]

FRESH_SECONDS = 0.9
"""The age from which on a heartbeat does not count: a worker that does not run is not waited for. Heartbeats
come every half second; with this value, a client waits less than a second."""

_MARK = int.from_bytes(b"wspage\0\2", "little")
"""Changes with the layout: workers may be newer than the parent that started them."""

_SERVING = int(Phase.SERVING)

_PHASES = {int(phase): phase for phase in Phase}

_WORD = 8
_HEADER_WORDS = 8
_SLOT_WORDS = 32

_WARNED = {"rooms": 2, "sessions": 3}
"""Words of the header."""

_PHASE, _HEARTBEAT, _CONNECTIONS, _WEBSOCKETS, _ACCEPTED = range(5)
_REFUSED, _RECEIVED, _SENT, _LAG, _PID = range(5, 10)
_ENGINES, _GENERATION, _QUEUED, _QUEUED_SECONDS, _ENGINE_LAG, _LOST, _REPLAYED = range(10, 17)
_GAPS = range(17, 17 + len(REASONS))


@attrs.frozen
class SlotFigures:
    """What one worker has written.

    Attributes:
        phase: what it is doing; `Phase.ABSENT` for a slot that is free.
        heartbeat: when its event loop ran last, in seconds of `time.monotonic()`; 0 before its server runs.
        connections: open now.
        counted: its other counters.
        pid: of the process that has attached the slot; 0 before.
        engines: figures of its engines for rooms; None if it has none.
    """

    phase: Phase
    heartbeat: float
    connections: int
    counted: Figures
    pid: int
    engines: EngineFigures | None


class _Memory:
    def __init__(self, fd: int) -> None:
        memory = memoryview(mmap.mmap(fd, 0))
        self.integers = memory.cast("q")
        self.doubles = memory.cast("d")

    def check(self) -> None:
        """Raise ValueError unless it has this layout."""
        if self.integers[0] != _MARK:
            raise ValueError(
                "this shared page was made by another version of wsframework: restart the parent process"
            )


class Page:
    """The shared memory, as the parent sees it.

    Args:
        fd: the descriptor of the memory; the page closes it.

    Attributes:
        fd: to be inherited by the workers.
        slots: how many there are.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = _Memory(fd)
        self._memory.check()
        self.slots = self._memory.integers[1]

    @classmethod
    def create(cls, slots: int) -> Page:
        """Make a page with this number of free slots.

        Raises:
            OSError: there is no memory, or no descriptor.
        """
        fd = _file_without_name()
        try:
            os.ftruncate(fd, (_HEADER_WORDS + slots * _SLOT_WORDS) * _WORD)
            _keep_size(fd)
            integers = _Memory(fd).integers
            integers[0], integers[1] = _MARK, slots
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @staticmethod
    def attach(fd: int, slot: int, clock: Callable[[], float] = time.monotonic) -> Slot:
        """Return a slot, for the worker that it belongs to; its phase is STARTING from now on.

        Args:
            fd: the inherited descriptor; it may be closed afterwards.
            slot: its number, from 0 on.
            clock: the clock of heartbeats.

        Raises:
            ValueError: the memory is not such a page, or has no such slot.
            OSError: it cannot be mapped.
        """
        return Slot(fd, slot, clock)

    def read(self, slot: int) -> SlotFigures:
        """Return what a worker has written."""
        integers, doubles, base = self._memory.integers, self._memory.doubles, self._base(slot)
        return SlotFigures(
            _PHASES.get(integers[base + _PHASE], Phase.ABSENT),
            doubles[base + _HEARTBEAT],
            integers[base + _CONNECTIONS],
            Figures(
                websockets=integers[base + _WEBSOCKETS],
                accepted=integers[base + _ACCEPTED],
                refused=integers[base + _REFUSED],
                messages_received=integers[base + _RECEIVED],
                messages_sent=integers[base + _SENT],
                loop_lag=doubles[base + _LAG],
            ),
            integers[base + _PID],
            self._engines(base),
        )

    def _engines(self, base: int) -> EngineFigures | None:
        integers, doubles = self._memory.integers, self._memory.doubles
        if integers[base + _ENGINES] not in (1, 2):
            return None
        return EngineFigures(
            up=integers[base + _ENGINES] == 2,
            generation=integers[base + _GENERATION],
            queued=integers[base + _QUEUED],
            queued_seconds=doubles[base + _QUEUED_SECONDS],
            lag_seconds=doubles[base + _ENGINE_LAG],
            lost=integers[base + _LOST],
            replayed=integers[base + _REPLAYED],
            gaps={reason: integers[base + at] for reason, at in zip(REASONS, _GAPS, strict=True)},
        )

    def clear(self, slot: int) -> None:
        """Free a slot whose worker has ended: its connections no longer count."""
        base = self._base(slot)
        for word in range(base, base + _SLOT_WORDS):
            self._memory.integers[word] = 0

    def close(self) -> None:
        """Close the descriptor. The memory stays as long as a process has it mapped."""
        os.close(self.fd)

    def _base(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise ValueError(f"the page has the slots 0 to {self.slots - 1}, and no slot {slot}")
        return _HEADER_WORDS + slot * _SLOT_WORDS


class Slot:
    """A worker's own slot, and its view of the others: the `Crowd` of its server. `Page.attach` makes one."""

    def __init__(self, fd: int, slot: int, clock: Callable[[], float]) -> None:
        memory = _Memory(fd)
        memory.check()
        if not 0 <= slot < memory.integers[1]:
            raise ValueError(f"the page has the slots 0 to {memory.integers[1] - 1}, and no slot {slot}")
        self._slot = slot
        self._clock = clock
        base = _HEADER_WORDS + slot * _SLOT_WORDS
        self._header = memory.integers[:_HEADER_WORDS]
        self._integers = memory.integers[base : base + _SLOT_WORDS]
        self._doubles = memory.doubles[base : base + _SLOT_WORDS]
        self._phases = memory.integers[_HEADER_WORDS + _PHASE :: _SLOT_WORDS]
        self._heartbeats = memory.doubles[_HEADER_WORDS + _HEARTBEAT :: _SLOT_WORDS]
        self._connections = memory.integers[_HEADER_WORDS + _CONNECTIONS :: _SLOT_WORDS]
        self._integers[_PID] = os.getpid()
        self.enter(Phase.STARTING)

    def enter(self, phase: Phase) -> None:
        """Tell the others what this worker is doing from now on."""
        self._integers[_PHASE] = phase

    def tell(self, connections: int) -> None:
        """Tell the others how many connections it has open."""
        self._integers[_CONNECTIONS] = connections

    def beat(self, figures: Figures) -> None:
        """Tell that the event loop runs, and the counters."""
        integers = self._integers
        integers[_WEBSOCKETS] = figures.websockets
        integers[_ACCEPTED] = figures.accepted
        integers[_REFUSED] = figures.refused
        integers[_RECEIVED] = figures.messages_received
        integers[_SENT] = figures.messages_sent
        self._doubles[_LAG] = figures.loop_lag
        self._doubles[_HEARTBEAT] = self._clock()

    def tell_engines(self, figures: EngineFigures | None) -> None:
        """Tell the figures of this worker's engines; None if it has none."""
        integers, doubles = self._integers, self._doubles
        if figures is not None:
            integers[_GENERATION] = figures.generation
            integers[_QUEUED] = figures.queued
            doubles[_QUEUED_SECONDS] = figures.queued_seconds
            doubles[_ENGINE_LAG] = figures.lag_seconds
            integers[_LOST] = figures.lost
            integers[_REPLAYED] = figures.replayed
            for at, reason in zip(_GAPS, REASONS, strict=True):
                integers[at] = figures.gaps[reason]
        integers[_ENGINES] = 0 if figures is None else 1 + figures.up

    def fewest(self) -> int | None:
        """Return the least number of connections of a worker that can accept; None if no other can."""
        oldest = self._clock() - FRESH_SECONDS
        least: int | None = None
        # The column as a whole, because most of its slots are free: copying costs less than looking at each.
        for slot, phase in enumerate(self._phases.tolist()):
            if phase == _SERVING and slot != self._slot and self._heartbeats[slot] >= oldest:
                connections = self._connections[slot]
                if least is None or connections < least:
                    least = connections
        return least

    def is_first_to_warn(self, of: Literal["rooms", "sessions"]) -> bool:
        """Whether no worker has called this before: what concerns all of them is logged once.

        Args:
            of: what the warning is about.
        """
        first = not self._header[_WARNED[of]]
        self._header[_WARNED[of]] = 1
        return first

    def is_alone(self) -> bool:
        """Whether no other worker serves, be it busy or full."""
        serving = self._phases.tolist()
        del serving[self._slot]
        return not {Phase.SERVING, Phase.FULL} & set(serving)

    def others(self) -> int:
        """Return how many connections all other workers have open, hanging and draining ones included."""
        return sum(self._connections.tolist()) - self._integers[_CONNECTIONS]


def _keep_size(fd: int) -> None:
    # If one process made it smaller, all of them would get SIGBUS.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # not a memory file
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def _file_without_name() -> int:
    if hasattr(os, "memfd_create"):  # Linux, FreeBSD
        return os.memfd_create("wsframework-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd, path = tempfile.mkstemp(prefix="wsframework-page-")
    os.unlink(path)
    return fd
