"""`wsframework publish`: a message to a room, from a shell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.here import run_here
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer


def run(*arguments: str, typed: bytes = b"") -> tuple[int, str, str]:
    return run_here("publish", *arguments, typed=typed)


def test_a_message_is_stored_and_its_position_printed(redis: RedisServer) -> None:
    server = ["--redis", redis.url, "--prefix", "cli"]
    command = [sys.executable, "-m", "wsframework", "publish", "tea", "The kettle is on.", *server]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(b".1.") == 1
    _, out, _ = run("tea", "--json", *server, typed="from a pipe: ü".encode())
    assert json.loads(out)["room"] == "tea"
    assert ".2." in json.loads(out)["position"]
    _, out, _ = run("tea", "--binary", *server, typed=b"\xff")
    assert ".3." in out


def test_mistakes_are_one_line(redis: RedisServer) -> None:
    for arguments, typed, status, why in (
        (["tea", "--redis", redis.url], b"\xff", 2, "is not UTF-8 (byte 0); send bytes with --binary"),
        (["tea", "x", "--redis", "http://h"], b"", 2, "not the URL of a Redis server"),
        (["tea", "x", "--redis", redis.url, "--key", "k" * 65], b"", 2, "a key has 1 to 64 characters"),
        ([], b"", 2, "Missing argument 'ROOM'"),
    ):
        code, _, err = run(*arguments, typed=typed)
        assert code == status, err
        assert why in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_server_that_is_not_there_is_status_1() -> None:
    code, _, err = run("tea", "x", "--redis", "redis://127.0.0.1:1")
    assert code == 1
    assert "cannot be reached: Connection refused" in err
    assert err.count("\n") == 1
