"""An account whose password or rights change while rooms are in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.engines.redis.stage import SECONDS, Stage


async def talk_without(folder: Path, change: tuple[str, ...], restore: tuple[str, ...]) -> Stage:
    """Talk while a command of ACL takes something from the account, and another one gives it back."""
    async with Stage.set(folder, account="rooms:secret") as stage:

        async def change_and_restore(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            assert b"-" not in await stage.server.command("ACL", *change)
            await stage.server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await trio.sleep(SECONDS / 4)
            assert b"-" not in await stage.server.command("ACL", *restore)

        await stage.suffer(change_and_restore)
        return stage


@pytest.mark.parametrize(
    ("change", "restore"),
    [
        (("SETUSER", "rooms", "resetpass", ">other"), ("SETUSER", "rooms", ">secret")),
        (("SETUSER", "rooms", "off"), ("SETUSER", "rooms", "on")),
        (("DELUSER", "rooms"), ("SETUSER", "rooms", "on", ">secret", "~*", "&*", "+@all")),
        (("SETUSER", "rooms", "resetchannels", "&other"), ("SETUSER", "rooms", "&*")),
        (("SETUSER", "rooms", "-evalsha"), ("SETUSER", "rooms", "+evalsha")),
        (("SETUSER", "rooms", "resetkeys", "~other:*"), ("SETUSER", "rooms", "~*")),
    ],
    ids=["password", "off", "deleted", "channels", "evalsha", "keys"],
)
async def test_an_account_that_is_wrong_for_a_while_is_an_outage(
    change: tuple[str, ...], restore: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await talk_without(tmp_path, change, restore)
    assert not stage.talk.gaps
    assert not stage.talk.unknown
    assert "redis.down" in caplog.text


@pytest.mark.parametrize("right", ["evalsha", "xadd", "hset", "publish"])
async def test_without_a_right_messages_are_not_confirmed_and_those_that_were_are_not_lost(
    right: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection stays."""
    async with Stage.set(tmp_path, account="rooms:secret") as stage:

        async def forbid(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            await stage.server.command("ACL", "SETUSER", "rooms", f"-{right}")
            await trio.sleep(SECONDS / 4)
            await stage.server.command("ACL", "SETUSER", "rooms", f"+{right}")

        await stage.suffer(forbid)
        if right == "evalsha":
            assert stage.talk.refused
            assert not stage.talk.unknown
        else:
            # The script ends in the middle.
            assert stage.talk.unknown
            assert not stage.talk.refused
        assert not stage.talk.gaps
        assert "redis.down" not in caplog.text
