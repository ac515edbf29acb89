from __future__ import annotations

import logging
import signal

import pytest
import trio

from tests.workers.fakes import FakeLaunch, FakeProcess
from wsframework.workers.crew import Failure, Worker


def make_worker() -> tuple[Worker, FakeProcess]:
    launch = FakeLaunch(serving=0)
    process, channel = launch.start(1, 0)
    assert isinstance(process, FakeProcess)
    return Worker(1, 0, 0, process, channel), process


async def test_a_worker_goes_from_starting_to_ready_to_leaving_to_its_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        states = [worker.state]
        process.serve()
        await worker.settled.wait()
        states.append(worker.state)
        await trio.sleep(3)
        assert worker.served_seconds == 3
        worker.drain(restarting=True)
        worker.drain(restarting=False)  # told once
        assert await process.hear() == ("drain", {"restarting": True})
        states.append(worker.state)
        assert worker.ends_by == trio.current_time() + 20
        process.end(0)
    assert [*states, worker.state] == ["starting", "ready", "leaving", "ended"]
    assert (worker.status, worker.failure) == (0, None)
    events = [entry.__dict__["event"] for entry in caplog.records]
    assert events == ["worker.ready", "worker.ended"]


async def test_a_worker_that_stops_by_itself_says_so_before_its_end() -> None:
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        process.serve()
        process.channel.send("leaving")
        await worker.gone.wait()
        assert worker.state == "leaving"
        assert not worker.told
        process.end(0)


async def test_what_a_worker_says_last_is_heard_and_its_reason_kept() -> None:
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        process.channel.send("failed", {"line": "no", "details": "Traceback", "mistake": True})
        process.end(2)
    assert worker.failure == Failure("no", "Traceback", True)
    assert worker.settled.is_set()
    assert not worker.was_ready


@pytest.mark.parametrize(
    ("status", "words"), [(1, "status 1"), (-9, "killed by SIGKILL"), (-77, "killed by signal 77")]
)
async def test_a_worker_that_says_nothing_before_its_end_has_its_status_as_reason(
    status: int, words: str
) -> None:
    worker, process = make_worker()
    process.end(status)
    await worker.follow()
    assert worker.failure == Failure(f"worker 1 ended before it was ready: {words}")


async def test_a_worker_whose_event_loop_does_not_run_yet_is_killed_in_place_of_a_drain() -> None:
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        worker.drain(restarting=False)
        assert process.signals == [signal.SIGKILL]
