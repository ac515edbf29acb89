"""The engines of a process, and their figures as those of one."""

from __future__ import annotations

import attrs

from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from wsframework.engines.redis import RedisEngine
from wsframework.engines.running import EngineFigures, figures_of_engines, together
from wsframework.rooms import RoomMessage

FIGURES = EngineFigures(
    up=True,
    generation=1,
    queued=2,
    queued_seconds=0.5,
    lag_seconds=0.25,
    lost=3,
    replayed=4,
    gaps={"epoch": 1, "regressed": 0, "forked": 0, "trimmed": 2},
)


def test_the_figures_of_several_engines_are_those_of_the_worst_or_their_sums() -> None:
    other = attrs.evolve(FIGURES, up=False, queued_seconds=0.1, lag_seconds=0.5, gaps={"trimmed": 1})
    assert together([FIGURES, other]) == EngineFigures(
        up=False,
        generation=2,
        queued=4,
        queued_seconds=0.5,
        lag_seconds=0.5,
        lost=6,
        replayed=8,
        gaps={"epoch": 1, "regressed": 0, "forked": 0, "trimmed": 3},
    )
    assert together([]) is None


async def test_engines_have_figures_while_they_run(redis: RedisServer) -> None:
    assert figures_of_engines() is None
    engine, other = (RedisEngine(redis.url, prefix=prefix) for prefix in ("one", "other"))
    async with engine.run(), other.run():
        await until(lambda: engine.statistics().up and other.statistics().up)
        await engine.publish("tea", RoomMessage.of("x"), (), None, None)
        figures = figures_of_engines()
        assert figures is not None
        assert (figures.up, figures.generation, figures.queued) == (True, 2, 0)
        assert figures.lag_seconds > 0
    assert figures_of_engines() is None
