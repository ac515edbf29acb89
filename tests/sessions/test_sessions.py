from __future__ import annotations

import pytest

from wsframework import ConfigurationError, LocalSessionStore, Sessions, SessionStatistics
from wsframework.testing import connection_pair

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("name", ["window", "overlap", "record_bytes", "rooms"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
async def test_a_number_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"Sessions\({name}={value}\): it must be more than 0, and f"
    ):
        Sessions(**{name: value})  # type: ignore[arg-type]


async def test_what_becomes_of_sessions_is_counted() -> None:
    sessions = Sessions()
    assert sessions.statistics() == SessionStatistics(0, 0, 0, 0, 0)
    async with connection_pair() as (one, _), connection_pair() as (two, _), connection_pair() as (three, _):
        async with sessions.open(one, None, user=1) as session:
            for ws in (two, three):
                async with sessions.open(ws, session.token, user=1 if ws is two else 2):
                    pass
            assert sessions.statistics() == SessionStatistics(
                open=1, created=2, resumed=1, refused=1, taken=1
            )
        assert sessions.statistics().open == 0


async def test_two_programs_share_a_store_and_need_none() -> None:
    store = LocalSessionStore()
    async with connection_pair() as (ws, _):
        async with Sessions(store=store).open(ws, None, user=None) as session:
            token = session.token
        async with Sessions(store=store).open(ws, token, user=None) as session:
            assert session.resumed
        async with Sessions().open(ws, token, user=None) as session:
            assert not session.resumed


async def test_who_the_user_is_has_to_be_said() -> None:
    async with connection_pair() as (ws, _):
        with pytest.raises(TypeError, match="user"):
            Sessions().open(ws, None)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="not bytes"):
            Sessions().open(ws, None, user=b"Ada")  # type: ignore[arg-type]
