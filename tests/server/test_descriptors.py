"""Limits of the system, and the descriptors that are kept for bad times."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import Any

import pytest

from wsframework.server import descriptors
from wsframework.server.descriptors import (
    SpareDescriptors,
    descriptor_limit,
    raise_descriptor_limit,
    room_for_connections,
)


class System:
    """A system whose limits are the test's."""

    RLIMIT_NOFILE = resource.RLIMIT_NOFILE
    RLIM_INFINITY = resource.RLIM_INFINITY

    def __init__(self, soft: int, hard: int, most: int = 2**40) -> None:
        self.soft, self.hard, self.most = soft, hard, most

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.most:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "most", "then"),
    [
        (1024, 4096, 2**40, 4096),
        (4096, 4096, 2**40, 4096),
        (256, INFINITE, 10_240, 8192),  # macOS
        (1024, 2**30, 2**40, 2**20),  # some containers
        (INFINITE, INFINITE, 2**40, INFINITE),
        (1024, 4096, 0, 1024),  # not allowed
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_goes(
    soft: int, hard: int, most: int, then: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(soft, hard, most)
    monkeypatch.setattr(descriptors, "_resource", system)
    raise_descriptor_limit()
    assert (system.soft, system.hard) == (then, hard)


def test_a_system_without_such_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_resource", None)
    raise_descriptor_limit()
    assert descriptor_limit() is None
    assert room_for_connections() is None
    monkeypatch.setattr(descriptors, "_resource", System(INFINITE, INFINITE))
    assert room_for_connections() is None


@pytest.mark.parametrize(("limit", "reserve"), [(10_000, 128), (400, 100)])
def test_connections_leave_room_for_the_rest(
    limit: int, reserve: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_resource", System(limit, limit))
    opened = len(os.listdir("/dev/fd"))
    assert room_for_connections() == limit - opened - reserve


def test_there_is_room_for_one_connection_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_resource", System(4, 4))
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(OSError))
    assert room_for_connections() == 1


def test_it_is_raised_for_real() -> None:
    program = (
        "from wsframework.server.descriptors import *; raise_descriptor_limit(); print(descriptor_limit())"
    )
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4000)
    output = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)),
    ).stdout
    assert int(output) == hard


def test_a_spare_descriptor_is_lent_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/dev/fd"))
    spare = SpareDescriptors()
    kept = len(os.listdir("/dev/fd")) - before
    assert kept == 4
    assert [spare.lend() for _ in range(5)] == [True] * 4 + [False]
    assert len(os.listdir("/dev/fd")) == before

    def full(*_: Any) -> int:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert not spare.refill()
    assert spare.refill()
    spare.lend()
    spare.close()
    assert spare.refill(), "whoever has closed it wants none back"
    assert len(os.listdir("/dev/fd")) == before
