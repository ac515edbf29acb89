"""`python -m benchmarks.redis_rooms`: its client, and each part on a small scale."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.frames import PING, PONG, TEXT, frame
from benchmarks.redis_rooms import alone, units
from benchmarks.redis_rooms.client import DIALECTS, Peer
from benchmarks.redis_rooms.fleet import Redis
from tests.proxies.running import program_path

ROOT = Path(__file__).resolve().parents[2]


def texts(data: bytes, dialect: str, room: str | None = "tea") -> tuple[list[str], bytes]:
    """Give a peer these bytes, in two halves at every place; return what it heard and what it sent."""
    results = set()
    for at in range(len(data)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            peer = Peer(ours, DIALECTS[dialect], room, data[:at])
            heard: list[str] = []
            peer.on_text = heard.append
            peer.take()
            peer.take(data[at:])
            try:
                sent = theirs.recv(65536)
            except BlockingIOError:
                sent = b""
            results.add((tuple(heard), sent))
    assert len(results) == 1
    ((heard_everywhere, sent),) = results
    return list(heard_everywhere), sent


def server_text(text: str) -> bytes:
    return frame(TEXT, text.encode(), masked=False)


def client_text(text: str) -> bytes:
    return frame(TEXT, text.encode(), masked=True)


def test_a_plain_peer_hears_texts_and_answers_pings() -> None:
    data = server_text("a") + frame(PING, b"?", masked=False) + server_text("b" * 300)
    assert texts(data, "plain") == (["a", "b" * 300], frame(PONG, b"?", masked=True))


def test_a_peer_of_socket_io_connects_joins_its_room_and_keeps_alive() -> None:
    data = b"".join(map(server_text, ['0{"sid":"1"}', '40{"sid":"2"}', '42["said","joined"]', "2"]))
    joined = client_text("40") + client_text('42["join", "tea"]') + client_text("3")
    assert texts(data, "socket.io") == (["joined"], joined)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    program_path("redis-server")
    server = Redis()
    yield server
    server.stop()


def test_a_crowd_is_told(redis: Redis) -> None:
    found = alone.crowd(redis, 4, 2, processes=2)
    assert found["members"] == 4
    assert found["to_the_last_ms"] > 0


def test_many_rooms_are_told(redis: Redis) -> None:
    found = alone.many_rooms(redis, 20, 0.5)
    assert found["messages_a_second"] > 0


def test_everybody_who_resumes_gets_what_was_missed(redis: Redis) -> None:
    found = alone.storm(redis, 20, rooms=4)
    assert found["clients"] == 20


def test_a_message_has_its_price(redis: Redis) -> None:
    found = units.spread(redis, 1, 0.5, units.Pace(100.0, 2, 1))
    assert found.servers_us > 0
    assert found.redis_us > 0


def test_the_command_writes_what_it_has_measured(tmp_path: Path) -> None:
    program_path("redis-server")
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.redis_rooms", "--rounds", "1", "--seconds", "0.2"]
    command += ["--members", "2", "--only", "wsframework,socket.io redis", "--json", str(path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert "subscriber µs" in finished.stdout
    taken = json.loads(path.read_text())["members:2"]["samples"]["wsframework"]
    assert taken[0]["subscriber_us"] > 0
    assert taken[0]["p50_ms"] > 0


def test_an_unknown_contender_is_one_line(tmp_path: Path) -> None:
    program_path("redis-server")
    command = [sys.executable, "-m", "benchmarks.redis_rooms", "--only", "carrots"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 2
    assert "no contender 'carrots'" in finished.stderr
