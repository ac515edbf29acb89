"""How connections are spread over servers in several processes; `make chaos` has more of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.workers.spreading import Servers, spread
from wsframework.server.crowd import Phase

Start = Callable[..., Servers]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers that end with the test."""
    started: list[Servers] = []

    def start(number: int, limit: int = 50_000) -> Servers:
        started.append(Servers(number, limit))
        return started[-1]

    yield start
    for servers in started:
        servers.close()


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 8, 200])
@pytest.mark.parametrize(("number", "connections"), [(2, 400), (4, 800)])
def test_long_lived_connections_are_spread_evenly(
    start: Start, number: int, connections: int, at_once: int
) -> None:
    servers = start(number)
    clients = servers.connect(connections, at_once)
    _, answers = clients.answers()
    assert answers == {"101": connections}
    assert spread(servers.wait_connections(connections)) <= 1.05


@pytest.mark.slow
def test_a_new_server_gets_the_connections_until_it_has_as_many(start: Start) -> None:
    servers = start(2)
    servers.connect(100).answers()
    servers.start()
    servers.wait_ready()
    servers.connect(60).answers()
    first, second, new = servers.wait_connections(160)
    assert new >= 40
    assert max(first, second) <= 60


@pytest.mark.slow
def test_nobody_waits_long_for_a_server_that_is_stopped(start: Start) -> None:
    servers = start(3)
    usual, _ = servers.connect(90).answers()
    stopped = servers.processes[0]
    stopped.send_signal(signal.SIGSTOP)
    longest, answers = servers.connect(120, at_once=1).answers()
    assert answers == {"101": 120}
    assert longest < 1 + 2 * usual
    assert servers.wait_connections(210)[0] <= 40
    # As soon as it runs again, it gets its share.
    stopped.send_signal(signal.SIGCONT)
    servers.wait_beating(stopped)
    servers.connect(90).answers()
    assert spread(servers.wait_connections(300)) <= 1.1


@pytest.mark.slow
def test_the_limit_is_for_all_servers_together_and_is_answered_with_503(start: Start) -> None:
    servers = start(3, limit=100)
    _, answers = servers.connect(120, at_once=20).answers()
    assert sum(answers.values()) == 120
    # Each of the others may admit one while a server looks at their numbers.
    assert 100 <= answers["101"] <= 102
    assert answers["101"] + answers.get("503", 0) + answers.get("closed", 0) == 120
    assert answers["503"] > 0
    assert spread(servers.wait_connections(answers["101"])) <= 1.3


@pytest.mark.slow
def test_a_server_that_leaves_loses_no_client_that_waits_to_be_accepted(start: Start) -> None:
    servers = start(2)
    clients = servers.connect(1500, at_once=300)
    servers.wait_some()
    servers.processes[0].send_signal(signal.SIGTERM)
    assert servers.processes[0].wait(20) == 0
    assert servers.phase(servers.processes[0]) == Phase.STOPPED
    _, answers = clients.answers()
    assert answers == {"101": 1500}
    assert servers.connections()[0] == 0


@pytest.mark.chaos
@pytest.mark.parametrize("at_once", [8, 125])
@pytest.mark.parametrize("number", [2, 4])
def test_ten_thousand_connections_are_spread_evenly(start: Start, number: int, at_once: int) -> None:
    servers = start(number)
    clients = [servers.connect(2500, at_once) for _ in range(4)]
    for each in clients:
        assert each.answers()[1] == {"101": 2500}
    held = servers.wait_connections(10_000)
    print(f"{number} servers, {4 * at_once} handshakes at a time: {held}, max/mean {spread(held):.3f}")
    assert spread(held) <= 1.05


@pytest.mark.chaos
def test_thousands_of_connections_go_to_servers_that_come_and_that_run_again(start: Start) -> None:
    servers = start(3)
    usual = max(servers.connect(2000, 50).answers()[0] for _ in range(3))
    hung, leaving, _ = servers.processes
    hung.send_signal(signal.SIGSTOP)
    servers.start()
    servers.wait_ready()
    longest = max(servers.connect(1000, at_once).answers()[0] for at_once in (1, 50))
    assert longest < 1 + 2 * usual
    hung.send_signal(signal.SIGCONT)
    servers.wait_beating(hung)
    before = servers.wait_connections(8000)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(30) == 0
    _, answers = servers.connect(3000, 50).answers()
    assert answers == {"101": 3000}
    held = servers.wait_connections(11_000 - before[1])
    print(f"{before}, then {held}")
    assert held.pop(1) == 0
    assert spread(held) <= 1.05
