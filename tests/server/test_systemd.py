from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from wsframework.errors import ConfigurationError, ListenError
from wsframework.server.systemd import ServiceManager, take_listeners


class StandIn:
    """What systemd has at the other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(address.replace("@", "\0"))

    def heard(self) -> list[str]:
        """Return what has been said since the last time."""
        said = []
        while True:
            try:
                said.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return said


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}"


@pytest.fixture
def manager(address: str) -> Iterator[StandIn]:
    stand_in = StandIn(address)
    with stand_in.socket:
        yield stand_in


def test_each_state_is_one_datagram(address: str, manager: StandIn) -> None:
    told = ServiceManager.take({"NOTIFY_SOCKET": address})
    told.ready("on 127.0.0.1:8000")
    told.reloading("new workers")
    told.ready("again")
    told.stopping("draining")
    ready, reloading, again, stopping = manager.heard()
    assert ready == "READY=1\nSTATUS=on 127.0.0.1:8000"
    first, time, status = reloading.split("\n")
    assert (first, status) == ("RELOADING=1", "STATUS=new workers")
    assert time.removeprefix("MONOTONIC_USEC=").isdigit()
    assert (again, stopping) == ("READY=1\nSTATUS=again", "STOPPING=1\nSTATUS=draining")


@pytest.mark.parametrize("address", ["path"], indirect=True)
async def test_the_watchdog_is_fed_twice_in_each_interval_while_all_is_well(
    address: str, manager: StandIn, autojump_clock: trio.testing.MockClock
) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    told = ServiceManager.take(environment)
    assert environment == {}
    well = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.feed_watchdog, lambda: well)
        await trio.sleep(14)
        assert manager.heard() == ["WATCHDOG=1"] * 3
        well = False
        await trio.sleep(60)
        assert manager.heard() == []
        well = True
        await trio.sleep(1)
        assert manager.heard() == ["WATCHDOG=1"]
        nursery.cancel_scope.cancel()


async def test_a_worker_that_hangs_has_most_of_the_interval_to_be_replaced(
    address: str, manager: StandIn, autojump_clock: trio.testing.MockClock
) -> None:
    told = ServiceManager.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.feed_watchdog)
        await trio.sleep(29)
        # The last time is at most five seconds ago, and not half of the interval.
        assert manager.heard() == ["WATCHDOG=1"] * 6
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "10000000"},
        {"NOTIFY_SOCKET": "@nowhere"},
        {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_a_watchdog_that_is_not_ours_is_not_fed(environment: dict[str, str]) -> None:
    told = ServiceManager.take(environment)
    assert environment == {}
    assert not told.watches
    with trio.fail_after(30):
        await told.feed_watchdog()


def test_a_service_manager_that_cannot_be_reached_is_logged_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    told = ServiceManager.take({"NOTIFY_SOCKET": str(tmp_path / "nowhere")})
    with caplog.at_level(logging.WARNING):
        told.ready("")
        told.stopping("")
    (entry,) = caplog.records
    assert entry.getMessage().startswith("notify.failed")


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_a_service_manager_that_does_not_read_holds_nothing_up(
    address: str, manager: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    told = ServiceManager(address)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            told.ready("")
            if caplog.records:
                break
    assert "notify.failed" in caplog.text


@pytest.mark.parametrize("name", ["WATCHDOG_USEC", "WATCHDOG_PID"])
def test_a_number_that_is_none_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'soon', and not a number"):
        ServiceManager.take({name: "soon"})


def ours(first: int, count: int = 1, names: str | None = None) -> list[socket.socket]:
    environment = {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid())}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    try:
        return take_listeners(environment, first)
    finally:
        assert environment == {}


def test_sockets_are_taken_and_not_inherited_further() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        os.set_inheritable(passed.fileno(), True)
        (taken,) = ours(passed.fileno())
        assert taken.getsockname() == passed.getsockname()
        assert not os.get_inheritable(taken.fileno())
        taken.detach()


@pytest.mark.parametrize(
    ("environment", "logged"),
    [
        ({}, False),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "1"}, False),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "chat.socket"}, True),
        ({"LISTEN_FDS": "1"}, True),
    ],
)
def test_sockets_of_another_process_are_left_alone(
    environment: dict[str, str], logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert take_listeners(environment) == []
    assert environment == {}
    assert ("sockets.not_ours" in caplog.text) is logged


def test_each_useless_descriptor_is_named_with_its_reason(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ListenError, match=f"^descriptor {fd} of LISTEN_FDS, 'chat', is not a socket: "):
        ours(fd, names="chat")
    os.close(fd)
    with pytest.raises(ListenError, match=f"^descriptor {fd} of LISTEN_FDS is not a socket: Bad file"):
        ours(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        check_is_refused(datagrams, "it is not a stream socket")
    one, other = socket.socketpair()
    with one, other:
        check_is_refused(one, "it is connected to a peer")
    with socket.socket() as unbound:
        check_is_refused(unbound, "it is not bound")


def check_is_refused(passed: socket.socket, why: str) -> None:
    with pytest.raises(ListenError, match=why) as refused:
        ours(passed.fileno())
    assert "Accept=no" in str(refused.value)


@pytest.mark.parametrize("name", ["LISTEN_FDS", "LISTEN_PID"])
def test_a_number_of_sockets_that_is_none_is_named(name: str) -> None:
    for wrong in ("three", "-1", "", "1" * 5000):
        with pytest.raises(ConfigurationError, match=f"{name} is '{wrong[:80]}', and not a number"):
            take_listeners({"LISTEN_FDS": "1", "LISTEN_PID": "1", name: wrong})


def test_a_number_of_sockets_that_nobody_has_costs_no_memory() -> None:
    environment = {"LISTEN_FDS": "99999999999", "LISTEN_PID": str(os.getpid())}
    with pytest.raises(ListenError, match="descriptor 4000 of LISTEN_FDS is not a socket"):
        take_listeners(environment, 4000)
