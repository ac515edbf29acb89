"""A stranger who writes anything to any key and channel of the rooms, while three nodes talk in them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.engines.redis.judge import ROOMS
from tests.engines.redis.stage import SECONDS, SEED, Stage

JUNK = ("x", "", "\x00\udcff", "9" * 400, "-1", "e 5 t 0 0", f"e {'9' * 20} t 1 1", " ", "[" * 4000)


def vandalism(chance: random.Random, nodes: list[str]) -> tuple[str, ...]:
    """Return a command."""
    room = f"ws:{{r/{chance.choice(ROOMS)}}}"
    key, junk = f"{room}:{chance.choice('msw')}", chance.choice(JUNK)
    return chance.choice(
        [
            ("DEL", key),
            ("SET", key, junk),
            ("HSET", key, junk or "f", junk),
            ("HSET", key, chance.choice(["s", "v", f"p:{nodes[0]}"]), junk),
            ("HSET", key, f"p:{nodes[0]}", "999999 1 t 5"),
            ("HDEL", key, "v"),
            ("HDEL", key, "s"),
            ("XADD", key, "*", "a", junk),
            ("XADD", key, "9999-1", "t", "x", "d", junk),
            ("XTRIM", key, "MAXLEN", "0"),
            ("EXPIRE", key, "0"),
            ("RENAME", key, f"{key}2"),
            ("PUBLISH", room, junk),
            ("PUBLISH", room, f"{chance.choice('mp')} {junk}\n{junk}"),
            ("ZADD", "ws:nodes", "0", chance.choice([*nodes, junk])),
            ("ZREM", "ws:nodes", nodes[2]),
            ("DEL", "ws:nodes"),
            ("SET", f"ws:node:{nodes[1]}", junk),
        ]
    )


@pytest.mark.slow
async def test_rooms_are_as_before_when_the_junk_of_a_stranger_is_removed(tmp_path: Path) -> None:
    async with Stage.set(tmp_path) as stage:
        nodes = [engine.node for engine in stage.engines]

        async def vandalize(stage: Stage) -> None:
            chance = random.Random(SEED)
            for _ in range(round(SECONDS * 20)):
                await trio.sleep(0.04)
                await stage.server.command(*vandalism(chance, nodes))
            rooms = [f"ws:{{r/{room}}}:{kind}" for room in ROOMS for kind in "msw"]
            await stage.server.command("DEL", "ws:nodes", *rooms, *(f"ws:node:{node}" for node in nodes))

        await stage.suffer(vandalize)
        # No connection was lost: the other rooms of these nodes have noticed nothing.
        assert [engine.statistics().generation for engine in stage.engines] == [1, 1, 1]
