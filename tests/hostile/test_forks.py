"""A child that a handler has forked, and that comes back: there is one server, and it is whole."""

from __future__ import annotations

import pytest

from tests.hostile.process import BRIEF, eventually, linux_only, serving
from tests.hostile.raw import Ended, ask

WAYS = ("return", "raise", "exit", "interrupt", "wait", "send", "child", "thread")


@linux_only
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_forked_child_that_comes_back_from_a_handler_is_no_second_server(tls: bool) -> None:
    with serving(tls=tls, timeouts=BRIEF) as target:
        innocents = [target.connect() for _ in range(3)]
        for how in WAYS:
            culprit = target.connect(f"/fork/{how}")
            assert culprit.message() == b"the parent", how
            culprit.echo(how.encode())
            for innocent in innocents:
                innocent.echo(how.encode())
            for _ in range(10):
                with target.connect(seconds=3) as newcomer:
                    newcomer.echo(b"a newcomer")
        assert target.log.count("came back to the event loop") == len(WAYS) - 1  # no loop in that of a thread
        assert target.busy_share() < 0.2
        assert target.stop() == 0
        with pytest.raises(Ended, match="Close 1001"):
            innocents[0].message()


@linux_only
@pytest.mark.parametrize("how", ["return", "raise", "exit", "interrupt", "wait"])
def test_a_forked_child_that_comes_back_from_a_page_is_no_second_server(how: str) -> None:
    with serving(timeouts=BRIEF) as target:
        innocent = target.connect()
        request = f"GET /fork-page/{how} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        answer = ask(target.port, request)
        if how != "interrupt":  # the child has dropped this connection, which is its own
            assert answer.endswith(b"the parent")
        eventually(lambda: "came back to the event loop" in target.log, "the child has ended")
        innocent.echo(b"an innocent")
        for _ in range(10):
            target.still_serves()
        assert target.stop() == 0
