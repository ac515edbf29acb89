"""The model of `python -m benchmarks.sizing`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from benchmarks.redis_rooms.units import Units
from benchmarks.sizing import Costs, Workload, processes_of, size

ROOT = Path(__file__).resolve().parents[2]

COSTS = Costs(
    units=Units(publish=100.0, receive=50.0, deliver=10.0, redis_publish=20.0, redis_tell=5.0),
    connect_us=1_000.0,
    connection_bytes=10_000,
    room_redis_bytes=1_000,
    message_redis_bytes=100,
)


def test_a_room_is_at_one_process_if_there_is_one_only() -> None:
    assert processes_of(10, 1) == pytest.approx(1)
    assert processes_of(1_000_000, 8) == pytest.approx(8)
    assert processes_of(10, 1_000_000) == pytest.approx(10, rel=1e-3)


def test_one_process_needs_the_sum_of_the_parts() -> None:
    # 1 room, 10 messages a second, 100 members: 10 * (100 + 50 + 100 * 10) us, and 1 connection a second.
    workload = Workload(100, 1, room_per_second=10.0, stay_seconds=100.0, message_bytes=100, history=10)
    need = size(workload, COSTS, busy=0.0126)
    assert need.processes == 1
    assert size(workload, COSTS, busy=0.0124).processes == 2
    assert need.deliveries == 1_000
    assert need.memory_bytes == 1_000_000
    assert need.redis_memory_bytes == 1_000 + 10 * 200


def test_more_of_anything_never_needs_less() -> None:
    workload = Workload(50_000, 500, room_per_second=1.0)
    base = size(workload, COSTS)
    for more in (
        attrs.evolve(workload, connections=100_000),
        attrs.evolve(workload, room_per_second=2.0),
        attrs.evolve(workload, stay_seconds=60.0),
    ):
        need = size(more, COSTS)
        assert need.processes >= base.processes
        assert need.redis_servers >= base.redis_servers


def test_memory_can_be_the_limit() -> None:
    need = size(Workload(1_000_000, 10, room_per_second=0.001), COSTS, process_bytes=1e9)
    assert (need.processes, need.limit) == (10, "memory")


def test_rooms_that_are_too_many_for_one_redis_are_split() -> None:
    need = size(Workload(10_000, 10_000, room_per_second=10.0), COSTS, busy=0.5)
    # 100,000 messages a second, each of 20 + 5 us: 2.5 seconds of CPU time.
    assert need.redis_servers == 5


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.sizing", "--connections", "1000"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0
    assert "| 1,000 | 1,000 | 100 | 100 | 1 | CPU |" in finished.stdout
