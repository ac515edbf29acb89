"""`wsframework publish`: a message to a room, from a shell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer


def run(*arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "wsframework", "publish", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, timeout=60, check=False)


def test_a_message_is_stored_and_its_position_printed(redis: RedisServer) -> None:
    server = ["--redis", redis.url, "--prefix", "cli"]
    ended = run("tea", "The kettle is on.", *server)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(b".1.") == 1
    ended = run("tea", "--json", *server, typed="from a pipe: ü".encode())
    assert json.loads(ended.stdout)["room"] == "tea"
    assert ".2." in json.loads(ended.stdout)["position"]
    ended = run("tea", "--binary", *server, typed=b"\xff")
    assert b".3." in ended.stdout


def test_mistakes_are_one_line(redis: RedisServer) -> None:
    for arguments, typed, status, why in (
        (["tea", "--redis", redis.url], b"\xff", 2, b"is not UTF-8 (byte 0); send bytes with --binary"),
        (["tea", "x", "--redis", "http://h"], b"", 2, b"not the URL of a Redis server"),
        (["tea", "x", "--redis", redis.url, "--key", "k" * 65], b"", 2, b"a key has 1 to 64 characters"),
        ([], b"", 2, b"Missing argument 'ROOM'"),
    ):
        ended = run(*arguments, typed=typed)
        assert ended.returncode == status, ended
        assert why in ended.stderr
        assert b"Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_server_that_is_not_there_is_status_1() -> None:
    ended = run("tea", "x", "--redis", "redis://127.0.0.1:1")
    assert ended.returncode == 1
    assert b"cannot be reached: Connection refused" in ended.stderr
    assert ended.stderr.count(b"\n") == 1
