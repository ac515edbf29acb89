"""Random handlers: small programs that a seed writes and that print as what they are.

A program is a tuple of `Step`s. `Author` writes one from a `random.Random`, `playing.Play` plays it. Steps
belong to families, so that a round can leave one out while its fault is known:

    calm     receive, send, ping, rooms, nurseries, cancel scopes
    closing  aclose, Close, return
    crash    an Exception, alone or in a group
    base     what is no Exception: SystemExit, asyncio's CancelledError, GeneratorExit, one of its own, groups
    corrupt  a nursery or a cancel scope that is entered and never left
    stuck    shielded sleeps, threads, a `Cancelled` that is swallowed once: all of them short
"""

from __future__ import annotations

import random
from typing import Any

import attrs

__all__ = ["FAMILIES", "ROOMS", "Author", "Program", "Step"]

FAMILIES = ("calm", "closing", "crash", "base", "corrupt", "stuck")

ROOMS = ("close", "drop_newest", "drop_oldest")
"""One room for each policy for slow members."""

CRASHES = ("value", "loud", "huge", "stop", "memory", "group", "nested")
BASES = ("own", "asyncio", "generator", "exit", "base_group", "mixed_group")
UNPRINTABLE = {"crash": ("unprintable", "deep"), "base": ("unprintable_base",)}
"""Exceptions whose repr() raises. Out of a child of a nursery they end Trio itself, which calls repr() for
the reason of the cancellation, so a program raises them outside of one only."""
CORRUPTIONS = (
    "generator_nursery",
    "generator_scope",
    "generator_task",
    "scope",
    "nursery",
    "cancelled_scope",
)

SIZES = (0, 1, 100, 125, 126, 1000, 5000, 15_000, 30_000, 66_000)


@attrs.frozen
class Step:
    """One thing that a handler does; `inner` are the programs inside it."""

    verb: str
    values: tuple[Any, ...] = ()
    inner: tuple[Program, ...] = ()

    def __str__(self) -> str:
        values = ", ".join(
            f"{value:.3g}" if isinstance(value, float) else str(value) for value in self.values
        )
        inner = "".join(f" {{{'; '.join(map(str, program))}}}" for program in self.inner)
        return f"{self.verb}({values}){inner}" if values or not inner else f"{self.verb}{inner}"


Program = tuple[Step, ...]


class Author:
    """Writes programs.

    Args:
        chance: where every decision comes from.
        families: the steps it may use.
        threads: whether there may be threads, which a virtual clock does not wait for.
    """

    def __init__(self, chance: random.Random, families: frozenset[str], *, threads: bool) -> None:
        self._chance = chance
        self._families = families
        self._threads = threads

    def handler(self) -> Program:
        """What a WebSocket handler does; an echo loop more often than not, because most real ones are."""
        program = self._program(3)
        if self._chance.random() < 0.5:
            program = (*program, Step("echo", (self._chance.choice((1, 5, 1000)),)))
        return (*program, *self._last())

    def guard(self) -> Program:
        """What a guard does for one request: nearly always nothing."""
        if self._chance.random() < 0.75:
            return ()
        steps = self._outside()
        if self._chance.random() < 0.3:
            refusal = self._chance.choice(((302, None), (403, None), (503, None), (401, 4401)))
            steps = (*steps, Step("reject", refusal))
        return steps

    def wrapper(self) -> tuple[Program, Program]:
        """What a wrapper does before and after its handler."""
        if self._chance.random() < 0.8:
            return (), ()
        return self._outside(), self._outside()

    def page(self) -> Program:
        """What an HTTP handler does."""
        answer = self._chance.choice(("text", "bytes", "none", "odd", "big"))
        return (*self._outside(), Step("answer", (answer,)))

    def _outside(self) -> Program:
        """Steps for which there is no connection."""
        chance = self._chance
        steps: list[Step] = []
        if chance.random() < 0.5:
            steps.append(self._sleep())
        roll = chance.random()
        if roll < 0.25:
            steps += self._last()
        elif roll < 0.4 and "stuck" in self._families:
            steps.append(self._stuck())
        return tuple(steps)

    def _last(self, *, nested: bool = False) -> Program:
        """How it ends, if not by returning."""
        endings = []
        for family, kinds in ("crash", CRASHES), ("base", BASES):
            kind = self._chance.choice(kinds if nested else (*kinds, *UNPRINTABLE[family]))
            if family in self._families:
                endings.append(Step("raise", (kind,)))
        if "corrupt" in self._families:
            endings.append(Step("leave", (self._chance.choice(CORRUPTIONS),)))
        if "closing" in self._families:
            endings.append(Step("close", (self._chance.randrange(4000, 4100),)))
            endings.append(Step("return"))
        if not endings or self._chance.random() < 0.5:
            return ()
        return (self._chance.choice(endings),)

    def _program(self, depth: int) -> Program:
        return tuple(self._step(depth) for _ in range(self._chance.randrange(1, 5)))

    def _sleep(self) -> Step:
        return Step("sleep", (self._chance.choice((0.0, 0.0, 0.001, 0.01, 0.05)),))

    def _moment(self) -> float:
        return self._chance.choice((0.0, 0.0005, 0.002, 0.01, 0.03))

    def _stuck(self) -> Step:
        chance = self._chance
        verbs = ["shield", "swallow", *(["thread"] if self._threads else [])]
        return Step(chance.choice(verbs), (chance.choice((0.0, 0.01, 0.05)),))

    def _step(self, depth: int) -> Step:
        chance = self._chance
        if depth > 0 and chance.random() < 0.4:
            return self._nested(depth - 1)
        roll = chance.random()
        if roll < 0.05 and "closing" in self._families:
            code = chance.choice((1000, 1001, 1011, 3000, 4999))
            return Step(chance.choice(("aclose", "aclose_impatiently")), (code, self._moment()))
        if roll < 0.10 and depth < 3:
            return next(iter(self._last(nested=True)), self._sleep())
        if roll < 0.16 and "stuck" in self._families:
            return self._stuck()
        size = chance.choice(SIZES)
        match chance.randrange(9):
            case 0:
                return self._sleep()
            case 1:
                return Step("receive", (chance.randrange(1, 5), self._moment()))
            case 2:
                return Step("echo", (chance.randrange(1, 20),))
            case 3:
                return Step("send", (chance.randrange(1, 10), size))
            case 4:
                return Step("send_impatiently", (chance.randrange(1, 30), size, self._moment()))
            case 5:
                return Step("send_nowait", (chance.randrange(1, 10), size))
            case 6:
                return Step("ping", (self._moment(),))
            case 7:
                return Step("broadcast", (chance.choice(ROOMS), chance.randrange(1, 10), size))
            case _:
                return Step("come_and_go", (chance.choice(ROOMS), chance.randrange(2, 12), size))

    def _nested(self, depth: int) -> Step:
        chance = self._chance
        match chance.randrange(8):
            case 0 | 1 | 2:
                return Step("join", (chance.choice(ROOMS),), (self._program(depth),))
            case 3:
                children = tuple(self._program(depth) for _ in range(chance.randrange(1, 4)))
                return Step(chance.choice(("nursery", "nursery", "nursery_cancelled")), (), children)
            case 4 | 5:
                return Step("child", (), (self._program(depth),))
            case 6:
                return Step("move_on", (self._moment(),), (self._program(depth),))
            case _:
                last = Step(chance.choice(("send_guarded", "broadcast", "shield")), (0.01,))
                if last.verb == "broadcast":
                    last = Step("broadcast", (chance.choice(ROOMS), 1, 100))
                return Step("finally", (), (self._program(depth), (last,)))
