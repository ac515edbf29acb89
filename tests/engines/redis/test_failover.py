"""Another server takes over: what it lacks is a gap, never silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.engines.redis.sentinels import replica_of
from tests.engines.redis.stage import SECONDS, Stage


@pytest.mark.parametrize("seconds_behind", [0.0, 0.4])
@pytest.mark.parametrize("seconds_late", [0.0, 0.8], ids=["at_once", "late"])
async def test_a_failover_loses_nothing_or_says_so(
    seconds_behind: float, seconds_late: float, tmp_path: Path
) -> None:
    """A node that comes late finds offsets used again: only the tags tell."""
    async with (
        Stage.set(tmp_path / "master") as stage,
        replica_of(stage.server, tmp_path / "replica") as replica,
    ):

        async def fail_over(stage: Stage) -> None:
            await trio.sleep(SECONDS / 3)
            await replica.command("REPLICAOF", "NO", "ONE")
            if seconds_behind:
                await trio.sleep(seconds_behind)
                await stage.talk.goes_on(0)  # however busy the machine: the replica lacks this
            stage.server.kill()
            first, *others = stage.proxies
            for proxy in others:
                proxy.target = replica.port
            for proxy in stage.proxies:
                await proxy.ended()  # a confirmation that is on its way may not come without the message
            await trio.sleep(seconds_late)
            first.target = replica.port

        await stage.suffer(fail_over)
        assert set(stage.talk.gaps) <= {"regressed", "forked"}
        if seconds_behind:
            assert stage.talk.gaps


async def test_what_the_losing_one_of_two_masters_took_is_a_gap_for_its_members(tmp_path: Path) -> None:
    """A partition: one node talks to the old master, the others to a replica that was promoted."""
    async with (
        Stage.set(tmp_path / "master") as stage,
        replica_of(stage.server, tmp_path / "replica") as replica,
    ):
        before: set[str] = set()

        async def split_and_heal(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            before.update(stage.talk.acknowledged)
            for proxy in stage.proxies[1:]:
                proxy.target = replica.port
                proxy.cut()
            # The replica has what those nodes were told is stored.
            await stage.server.command("SET", "marker", "here")
            while b"here" not in await replica.command("GET", "marker"):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await replica.command("REPLICAOF", "NO", "ONE")
            await trio.sleep(SECONDS / 2)
            await stage.talk.goes_on(0)
            await stage.server.command("REPLICAOF", "127.0.0.1", f"{replica.port}")
            # Whatever of it was stored is lost, and a confirmation may still be on its way.
            stage.talk.may_be_lost |= stage.talk.said(0) - before
            stage.proxies[0].target = replica.port
            # As sentinels do when they make a replica of an old master.
            await stage.server.command("CLIENT", "KILL", "TYPE", "pubsub")

        await stage.suffer(split_and_heal)
        for (node, _), member in stage.talk.members.items():
            assert set(member.gaps) <= ({"regressed", "forked"} if node == 0 else set())
        assert stage.talk.gaps


async def test_a_master_that_becomes_a_replica_gets_its_messages_when_it_is_a_master_again(
    tmp_path: Path,
) -> None:
    async with Stage.set(tmp_path) as stage:

        async def demote(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            await stage.server.command("REPLICAOF", "127.0.0.1", "1")
            await trio.sleep(SECONDS / 4)
            await stage.server.command("REPLICAOF", "NO", "ONE")

        await stage.suffer(demote)
        assert not stage.talk.gaps
        assert not stage.talk.refused
