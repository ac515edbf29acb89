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


async def test_messages_of_another_version_are_left_out() -> None:
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        process.channel.send("dance", {"with": "wolves"})
        process.channel.send("failed", "in another form")
        process.channel.send("running", "soon")
        process.serve()
        await worker.settled.wait()
        assert worker.state == "ready"
        process.end(0)


@pytest.mark.parametrize(
    ("said", "status", "event"),
    [
        ([], 0, "worker.ended"),  # SIGTERM has told it before it served
        ([], -15, "worker.ended"),  # SIGTERM before it can obey it
        (["ready"], -15, "worker.died"),
        (["ready"], 0, "worker.died"),
        (["ready", "leaving"], 0, "worker.ended"),
        (["ready", "leaving"], 1, "worker.died"),
        (["ready"], -9, "worker.died"),
    ],
)
async def test_a_process_that_exits_while_it_serves_has_died_whatever_its_status(
    said: list[str], status: int, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker, process = make_worker()
    for kind in said:
        process.channel.send(kind)
    process.end(status)
    await worker.follow()
    assert caplog.records[-1].__dict__["event"] == event
    assert worker.died is (event == "worker.died")


async def test_a_worker_that_is_killed_because_it_cannot_drain_yet_has_not_died(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    worker, _ = make_worker()
    worker.drain(restarting=True)
    await worker.follow()
    assert caplog.records[-1].__dict__["event"] == "worker.ended"
    assert caplog.records[-1].__dict__["fields"]["signal"] == "SIGKILL"


async def test_a_worker_that_leaves_by_itself_has_as_long_as_one_that_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, process = make_worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.follow)
        process.serve()
        await worker.settled.wait()
        await trio.sleep(100)
        process.channel.send("leaving")
        await worker.gone.wait()
        assert worker.ends_by == trio.current_time() + 20
        process.end(0)
