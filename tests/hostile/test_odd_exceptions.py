"""Whatever an application's code raises, wherever: one connection's end, one record, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.hostile.playing import ERRORS
from tests.hostile.process import BRIEF, Target, eventually, serving
from tests.hostile.raw import Client, Ended, ask, request

PLACES: dict[str, str] = {
    "handler": "/raise?handler={kind}",
    "child": "/raise?child={kind}",
    "thread": "/raise?thread={kind}",
    "wrapper, before": "/echo?enter={kind}",
    "wrapper, after": "/raise?leave={kind}",
    "guard": "/echo?guard={kind}",
    "given": "/given?given={kind}",
    "page": "/raise-page?page={kind}",
}

# Trio calls repr() for the reason of a cancellation when a nursery's child has raised, and ends if it raises.
TRIO_ENDS = {(place, kind) for place in ("child",) for kind in ("unprintable", "unprintable_base", "deep")}

KINDS = tuple(ERRORS)


def outcome(target: Target, place: str, kind: str) -> int:
    """Raise, and return what the client was told: a close code, an HTTP status, or 0 for nothing."""
    path = PLACES[place].format(kind=kind)
    if place == "page":
        return status(ask(target.port, head(path), seconds=5).decode("latin-1"))
    try:
        with Client(target.port, path, seconds=5) as culprit:
            return culprit.close_code()
    except Ended as ended:
        return status(str(ended))


def head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


def status(answer: str) -> int:
    return int(answer.split(" ", 2)[1]) if answer.startswith("HTTP/1.1 ") else 0


@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_raised_ends_its_own_connection_and_is_logged_once(place: str) -> None:
    expected = 500 if place in ("guard", "given", "page") else 1011
    event = "guard.crashed" if place in ("guard", "given") else "handler.crashed"
    with serving(timeouts=BRIEF) as target:
        innocent = target.connect()
        raised = 0
        for kind in KINDS:
            if (place, kind) in TRIO_ENDS:
                continue
            raised += 1
            try:
                told: object = outcome(target, place, kind)
                innocent.echo(kind.encode())
            except (Ended, OSError) as error:
                told = repr(error)
            logged = [record["event"] for record in target.records()]
            assert told == expected, f"{kind}: {target.log[-1500:]}"
            assert logged == [event] * raised, f"{kind}: {target.log[-1500:]}"
        assert target.log_bytes < 100_000 * len(KINDS)
        target.still_serves()
        assert target.stop() == 0


@pytest.mark.parametrize("place", ["handler", "guard", "given", "page"])
def test_keyboard_interrupt_drains_the_server_and_ends_the_program(place: str) -> None:
    with serving(timeouts={"drain": 1}) as target:
        innocent = target.connect()
        path = PLACES[place].format(kind="interrupt")
        with suppress(OSError):
            ask(target.port, head(path) if place == "page" else request(path), seconds=3)
        assert innocent.close_code() == 1001
        innocent.sock.close()
        eventually(lambda: target.process.poll() is not None, "the program has ended", 10)
        assert target.process.returncode != 0


def test_system_exit_out_of_a_lifespan_drains_the_server_and_is_the_exit_code() -> None:
    with serving(timeouts={"drain": 1}, lifespan="exit") as target:
        innocent = target.connect()
        innocent.echo()
        assert innocent.close_code() == 1001
        innocent.sock.close()
        eventually(lambda: target.process.poll() is not None, "the program has ended", 10)
        assert target.process.returncode == 5


def test_an_error_of_a_megabyte_or_with_control_characters_makes_short_and_harmless_lines() -> None:
    with serving() as target:
        for kind in ("huge", "loud"):
            assert outcome(target, "handler", kind) == 1011
        assert target.log_bytes < 100_000
        assert not [found for found in "\x1b\x9b\u202e\0" if found in target.log]
