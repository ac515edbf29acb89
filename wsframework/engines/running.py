"""The engines that run in this process, for whoever shows their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import attrs

__all__ = ["REASONS", "EngineFigures", "figures_of_engines", "shown", "together"]

REASONS = ("epoch", "regressed", "forked", "trimmed")
"""Why messages are lost, as `RedisStatistics.gaps` names them."""


class _Statistics(Protocol):
    """What an engine counts, as `RedisStatistics` explains it."""

    @property
    def up(self) -> bool: ...
    @property
    def generation(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def queued_seconds(self) -> float: ...
    @property
    def lag_seconds(self) -> float | None: ...
    @property
    def lost(self) -> int: ...
    @property
    def replayed(self) -> int: ...
    @property
    def gaps(self) -> Mapping[str, int]: ...


@attrs.frozen(kw_only=True)
class EngineFigures:
    """The figures of all engines of a process, which are mostly one.

    Attributes:
        up: whether all of them are connected.
        generation: how many connections they have had.
        queued: messages that wait.
        queued_seconds: how long the oldest of them has waited.
        lag_seconds: how long messages take, at the slowest engine; 0 before the first message.
        lost: broadcasts that were given up.
        replayed: messages that came from a history.
        gaps: losses that were reported, by reason.
    """

    up: bool
    generation: int
    queued: int
    queued_seconds: float
    lag_seconds: float
    lost: int
    replayed: int
    gaps: Mapping[str, int]


_running: list[Callable[[], _Statistics]] = []


@contextmanager
def shown(statistics: Callable[[], _Statistics]) -> Iterator[None]:
    """Have an engine counted within the context.

    Args:
        statistics: the engine's.
    """
    _running.append(statistics)
    try:
        yield
    finally:
        _running.remove(statistics)


def figures_of_engines() -> EngineFigures | None:
    """Return the figures of all engines that run; None if there is none."""
    return together([statistics() for statistics in _running])


def together(found: Sequence[_Statistics]) -> EngineFigures | None:
    """Return the figures of several engines as those of one; None if there is none.

    Args:
        found: of each engine.
    """
    if not found:
        return None
    return EngineFigures(
        up=all(each.up for each in found),
        generation=sum(each.generation for each in found),
        queued=sum(each.queued for each in found),
        queued_seconds=max(each.queued_seconds for each in found),
        lag_seconds=max(each.lag_seconds or 0.0 for each in found),
        lost=sum(each.lost for each in found),
        replayed=sum(each.replayed for each in found),
        gaps={reason: sum(each.gaps.get(reason, 0) for each in found) for reason in REASONS},
    )
