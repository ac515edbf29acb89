from __future__ import annotations

from wsframework.config import Limits, Timeouts
from wsframework.observer import Observer
from wsframework.server.core import Core


class Told(Observer):
    def __init__(self) -> None:
        self.failed: list[BaseException] = []
        self.blocked: list[float] = []

    def server_failed(self, error: BaseException) -> None:
        self.failed.append(error)

    def loop_blocked(self, seconds: float, function: str | None, stack: str | None) -> None:
        self.blocked.append(seconds)
        raise KeyboardInterrupt


async def test_its_parts_tell_the_observers_and_an_observers_interrupt_stops_the_server() -> None:
    told = Told()
    core = Core(limits=Limits(), timeouts=Timeouts(), secure=False, observers=[told])
    core.blocked_loop.report(3)
    assert core.lifetime.stopping.is_set()
    core.blocked_loop.report(4)
    assert [round(seconds) for seconds in told.blocked] == [3, 4]
    assert isinstance(core.lifetime.cause, KeyboardInterrupt)
    assert not core.lifetime.drain_limit.cancel_called
    mistake = ValueError("a mistake of ours")
    core.lifetime.fail(mistake)
    assert told.failed == [mistake]


async def test_it_begins_with_no_connection() -> None:
    core = Core(limits=Limits(), timeouts=Timeouts(), secure=False, observers=())
    for kind in (core.transports, core.sessions, core.waiting, core.handshakes, core.deciding):
        assert len(kind) == 0
    assert (core.admission.open, core.draining, core.lifetime.cause) == (0, False, None)
