"""Whatever an application's code raises, wherever: one connection's end, one record, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.hostile.playing import ERRORS
from tests.hostile.process import Target, eventually, serving
from tests.hostile.raw import Client, Ended, ask

PLACES: dict[str, str] = {
    "handler": "/raise?handler={kind}",
    "child": "/raise?child={kind}",
    "thread": "/raise?thread={kind}",
    "wrapper, before": "/echo?enter={kind}",
    "wrapper, after": "/raise?leave={kind}",
    "guard": "/echo?guard={kind}",
    "page": "/raise-page?page={kind}",
}

# Trio calls repr() for the reason of a cancellation when a nursery's child has raised, and ends if that raises.
TRIO_ENDS = {(place, kind) for place in ("child",) for kind in ("unprintable", "unprintable_base", "deep")}

# A thread's function cannot raise StopIteration, and this is its asynchronous sister: Trio lets it through.
KINDS = tuple(ERRORS)


def outcome(target: Target, place: str, kind: str) -> int:
    """Raise, and return what the client was told: a close code or an HTTP status."""
    path = PLACES[place].format(kind=kind)
    if place == "page":
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        return int(ask(target.port, head.encode()).split(b" ", 2)[1])
    try:
        with Client(target.port, path, seconds=5) as culprit:
            return culprit.close_code()
    except Ended as ended:
        answer = str(ended)
        return int(answer.split(" ", 2)[1]) if answer.startswith("HTTP/1.1 ") else 0


@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_raised_ends_its_own_connection_and_is_logged_once(place: str) -> None:
    expected = 500 if place in ("guard", "page") else 1011
    with serving() as target:
        innocent = target.connect()
        told: dict[str, object] = {}
        for number, kind in enumerate(KINDS):
            if (place, kind) in TRIO_ENDS:
                continue
            try:
                found: object = outcome(target, place, kind)
                innocent.echo(kind.encode())
            except (Ended, OSError) as error:
                found = repr(error)
            logged = [record["event"] for record in target.records()]
            if found != expected:
                told[kind] = found
            elif logged != ["guard.crashed" if place == "guard" else "handler.crashed"] * (number + 1 - skipped(place, kind)):
                told[kind] = f"records: {logged[-3:]}, {len(logged)} behind number {number + 1}"
            if told:
                break
        assert not told, target.log[-1500:]
        assert target.log_bytes < 100_000 * len(KINDS)
        target.still_serves()
        assert target.stop() == 0


def skipped(place: str, kind: str) -> int:
    """How many kinds before this one were left out."""
    before = KINDS[: KINDS.index(kind)]
    return sum((place, other) in TRIO_ENDS for other in before)


def goodbye(innocent: Client) -> int:
    return innocent.close_code()


@pytest.mark.parametrize("place", ["handler", "guard", "page"])
def test_keyboard_interrupt_drains_the_server_and_ends_the_program(place: str) -> None:
    with serving(timeouts={"drain": 1}) as target:
        innocent = target.connect()
        path = PLACES[place].format(kind="interrupt")
        culprit: Callable[[], object] = lambda: ask(  # noqa: E731
            target.port,
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            if place == "page"
            else f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
            seconds=3,
        )
        try:
            culprit()
        except OSError:
            pass
        assert goodbye(innocent) == 1001
        innocent.sock.close()
        eventually(lambda: target.process.poll() is not None, "the program has ended", 10)
        assert target.process.returncode in (130, -signal.SIGINT, 1)


def test_system_exit_out_of_a_lifespan_drains_the_server_and_is_the_exit_code() -> None:
    with serving(timeouts={"drain": 1}, lifespan="exit") as target:
        innocent = target.connect()
        innocent.echo()
        assert goodbye(innocent) == 1001
        innocent.sock.close()
        eventually(lambda: target.process.poll() is not None, "the program has ended", 10)
        assert target.process.returncode == 5


def test_an_error_of_a_megabyte_or_with_control_characters_makes_short_and_harmless_lines() -> None:
    with serving() as target:
        for kind in ("huge", "loud"):
            assert outcome(target, "handler", kind) == 1011
        assert target.log_bytes < 100_000
        assert not [found for found in "\x1b\x9b\u202e\0" if found in target.log]
