"""What random clients do: good ones, bad ones and such as leave in the middle.

A client's life is written before it is lived, as a handler's program is, so that it can be printed.
"""

from __future__ import annotations

import random

import attrs

from tests.hostile.programs import SIZES, Program, Step

__all__ = ["Life", "write_life"]

LEAVINGS = ("close", "close", "close", "wait", "vanish", "reset", "half_close")


@attrs.frozen
class Life:
    """What a client does.

    Attributes:
        opening: how it begins: "upgrade", or something that never becomes a WebSocket.
        lawful: whether all it sends is what RFC 6455 allows, in messages that the server's limits allow.
        compressed: whether it offers permessage-deflate.
        reads: seconds between reads: 0 for a good reader, None for one that does not read at all.
        steps: what it sends.
        leaving: how it goes.
    """

    opening: str
    lawful: bool
    compressed: bool
    reads: float | None
    steps: Program
    leaving: str

    @property
    def well_behaved(self) -> bool:
        """Whether it is owed an orderly end: it breaks no rule, reads, and stays for the goodbye."""
        stays = self.leaving in ("close", "wait")
        return self.upgrades and self.lawful and self.reads == 0 and stays

    @property
    def upgrades(self) -> bool:
        """Whether it asks for a WebSocket as it should; perhaps with a message right behind the request."""
        return self.opening in ("upgrade", "upgrade_at_once")

    def __str__(self) -> str:
        reads = (
            "never reads" if self.reads is None else f"reads every {self.reads} s" if self.reads else "reads"
        )
        how = f"{self.opening}{', compressed' if self.compressed else ''}, {reads}"
        return f"client: {how}: {'; '.join(map(str, self.steps))}; then {self.leaving}"


OPENINGS = (
    "page",
    "probe",
    "part_of_head",
    "nonsense",
    "wrong_origin",
    "odd_head",
    "not_tls",
    "huge_head",
    "post",
)


def write_life(chance: random.Random) -> Life:
    opening = "upgrade" if chance.random() < 0.75 else chance.choice(OPENINGS)
    if opening == "upgrade" and chance.random() < 0.2:
        opening = "upgrade_at_once"  # not to be had from trio-websocket, and not a client's right
    lawful = chance.random() < 0.6
    compressed = opening == "upgrade" and chance.random() < 0.3
    reads = chance.choice((0.0, 0.0, 0.0, 0.003, 0.02, None))
    steps = tuple(_step(chance, lawful, compressed) for _ in range(chance.randrange(0, 10)))
    return Life(opening, lawful, compressed, reads, steps, chance.choice(LEAVINGS))


def _step(chance: random.Random, lawful: bool, compressed: bool) -> Step:
    size = chance.choice(SIZES)
    if not lawful and chance.random() < 0.4:
        kind = chance.choice(
            ("noise", "utf8", "rsv", "oversize", "orphan", "code", "bomb", "cut", "unmasked", "long_ping")
        )
        return Step(kind, (chance.randrange(1 << 30),))
    match chance.randrange(8):
        case 0:
            return Step("pause", (chance.choice((0.0, 0.001, 0.02, 0.1)),))
        case 1:
            return Step("fragments", (size, chance.randrange(2, 20)))
        case 2:
            return Step("pings", (chance.randrange(1, 60), chance.choice((0, 125))))
        case 3:
            return Step("pongs", (chance.randrange(1, 20),))
        case 4:
            return Step("tiny", (chance.randrange(1, 800),))
        case 5 if compressed:
            return Step("deflated", (size, chance.randrange(1, 5)))
        case 6:
            return Step("empty_fragments", (chance.randrange(1, 500),))
        case _:
            return Step("messages", (size, chance.randrange(1, 10)))
