"""No file descriptors are left: newcomers hear so, nobody else notices, and the log stays readable."""

from __future__ import annotations

import time

from tests.hostile.process import Target, linux_only, serving
from tests.hostile.raw import Ended, ask, request

DESCRIPTORS = 64


def fill(target: Target) -> list[str]:
    """Connect until it is full, and far beyond; return what those were told who were not served."""
    refused = []
    for _ in range(DESCRIPTORS + 30):
        try:
            target.connect(seconds=2)
        except (Ended, OSError) as error:
            refused.append(str(error).splitlines()[0])
    return refused


@linux_only
def test_newcomers_hear_503_when_no_descriptor_is_left_and_are_served_when_there_is() -> None:
    with serving(descriptors=DESCRIPTORS) as target:
        innocent = target.connect()
        refused = fill(target)
        assert refused
        assert {line for line in refused if " 503 " not in line} == set()
        innocent.echo()
        target._clients.remove(innocent)
        target.close_clients()
        time.sleep(0.3)
        target.still_serves()
        innocent.echo()
        innocent.sock.close()


@linux_only
def test_a_server_without_descriptors_logs_at_a_rate_and_does_not_spin() -> None:
    with serving(descriptors=DESCRIPTORS) as target:
        innocent = target.connect()
        fill(target)
        time.sleep(1.5)
        assert len(target.records()) < 30, target.log[-2000:]
        assert target.busy_share() < 0.3
        innocent.echo()


@linux_only
def test_a_storm_over_the_limit_of_connections_is_told_so_and_logged_at_a_rate() -> None:
    with serving(limits={"connections": 5}) as target:
        peers = [target.connect() for _ in range(5)]
        for _ in range(300):
            assert ask(target.port, request()).startswith(b"HTTP/1.1 503")
        peers[0].echo()
        assert target.log_bytes < 20_000, f"{target.log_bytes} bytes of log"
