"""Records of what a stranger can cause a thousand times a second."""

from __future__ import annotations

import pytest

from wsframework.engines.redis.counters import Counters, Rated


def test_a_rated_record_is_written_at_once_and_then_rarely_with_the_number_of_events() -> None:
    now, written = [0.0], list[tuple[str, dict[str, int]]]()
    rated = Rated(lambda: now[0])

    def happen(name: str) -> None:
        rated.write(lambda **more: written.append((name, more)))

    happen("first")
    rated.go_on()
    for number in range(1000):
        happen(f"{number}")
    rated.go_on()
    assert written == [("first", {})]
    now[0] = 10.0
    rated.go_on()
    rated.go_on()
    assert written[1:] == [("999", {"count": 1000})]
    now[0] = 30.0
    happen("one")
    assert written[2:] == [("one", {})]


def test_what_is_malformed_is_counted_and_logged_with_its_room(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    for number in range(100):
        counters.skipped("tea", ValueError("junk"), position=f"e.{number}.t")
        counters.failed(ValueError("of a function"))
    assert counters.malformed == 100
    assert caplog.text.count("room.malformed room=tea position=e.0.t error=junk") == 1
    assert caplog.text.count("room.malformed") == 1
    assert caplog.text.count("connection.failed") == 1
