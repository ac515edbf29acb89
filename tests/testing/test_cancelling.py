"""`cancel_everywhere` finds every cancel point, of every kind, and the mistakes that hide there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from wsframework.testing import CancelPoint, CancelReport, DeadlineExceeded, cancel_everywhere


def kinds(report: CancelReport) -> list[str]:
    return [point.kind for point in report.points]


async def test_a_check_is_a_point_though_it_never_yields() -> None:
    passed: list[int] = []

    async def scenario() -> None:
        passed.append(0)
        await trio.lowlevel.checkpoint_if_cancelled()
        passed.append(1)
        await trio.lowlevel.checkpoint_if_cancelled()
        passed.append(2)

    report = await cancel_everywhere(scenario)
    assert kinds(report) == ["check", "check"]
    assert report.cancelled == 2
    assert passed == [0, 0, 1, 0, 1, 2]


@asynccontextmanager
async def an_event_that_comes_late() -> AsyncIterator[trio.Event]:
    event = trio.Event()

    async def come_late() -> None:
        await trio.testing.wait_all_tasks_blocked()
        event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_late)
        yield event


async def test_waiting_is_a_point_where_it_begins_and_where_it_ends() -> None:
    after: list[str] = []

    async def scenario(event: trio.Event) -> None:
        await event.wait()
        after.append("wait")
        await trio.lowlevel.checkpoint_if_cancelled()
        after.append("check")

    report = await cancel_everywhere(scenario, setup=an_event_that_comes_late)
    # Cancelled when it wakes, the task goes on with what it waited for, up to the next point.
    assert kinds(report) == ["park", "wake", "check"]
    assert report.cancelled == 3
    assert after == ["wait", "wait", "wait", "check"]


async def test_a_scenario_without_points_runs_once() -> None:
    runs: list[str] = []

    async def scenario() -> None:
        runs.append("run")

    report = await cancel_everywhere(scenario)
    assert report.points == ()
    assert runs == ["run"]


async def test_points_inside_trio_and_inside_others_are_found() -> None:
    lock = trio.Lock()
    send, receive = trio.open_memory_channel[int](1)

    async def deeper() -> None:
        async with lock:
            await send.send(1)
        await receive.receive()

    async def scenario() -> None:
        await deeper()

    async def check() -> None:
        assert not lock.locked()
        if send.statistics().current_buffer_used:
            receive.receive_nowait()

    report = await cancel_everywhere(scenario, check)
    assert report.cancelled >= 4
    assert all("deeper (test_cancelling.py:" in point.place for point in report.points)


async def test_a_point_after_which_there_is_no_other_is_survived() -> None:
    got: list[int] = []

    async def scenario(event: trio.Event) -> None:
        await event.wait()
        got.append(1)

    report = await cancel_everywhere(scenario, setup=an_event_that_comes_late)
    assert [(point.kind, point.cancelled) for point in report.points] == [("park", True), ("wake", False)]
    assert (report.cancelled, report.survived) == (1, 1)
    assert len(got) == 2


async def test_a_shielded_part_is_passed_and_then_cancelled() -> None:
    closed: list[str] = []

    async def scenario() -> None:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            closed.append("closed")
        await trio.lowlevel.checkpoint()

    report = await cancel_everywhere(scenario)
    assert len(closed) == len(report.points) + 1


async def test_it_finds_a_message_that_is_lost_between_waking_and_the_next_check() -> None:
    """What `wake` is for: most code is right when it is cancelled asleep, and wrong when it is woken."""
    send, receive = trio.open_memory_channel[int](10)
    kept: list[int] = []

    async def careless() -> None:
        message = await receive.receive()
        await trio.lowlevel.checkpoint()
        kept.append(message)

    @asynccontextmanager
    async def one_message() -> AsyncIterator[None]:
        send.send_nowait(1)
        yield

    async def scenario(_: None) -> None:
        await careless()

    def check(_: None) -> None:
        assert len(kept) + receive.statistics().current_buffer_used > 0, "the message is lost"
        while receive.statistics().current_buffer_used:
            receive.receive_nowait()
        kept.clear()

    with pytest.raises(AssertionError, match="the message is lost") as caught:
        await cancel_everywhere(scenario, check, setup=one_message)
    assert any("cancelled at a" in note and "careless" in note for note in caught.value.__notes__)


async def test_set_up_and_check_are_never_cancelled_and_run_for_every_point() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def setting() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        events.append("in")
        yield "made"
        await trio.lowlevel.checkpoint()
        events.append("out")

    async def scenario(made: str) -> None:
        assert made == "made"
        await trio.lowlevel.checkpoint_if_cancelled()

    async def check(made: str) -> None:
        await trio.lowlevel.checkpoint()
        events.append(made)

    report = await cancel_everywhere(scenario, check, setup=setting)
    assert len(report.points) == 1
    assert events == ["in", "made", "out"] * 2


async def test_a_scenario_that_hangs_after_its_cancellation_fails_and_says_where(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def scenario() -> None:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            with trio.move_on_after(100, shield=True):
                await trio.sleep_forever()
            raise

    with pytest.raises(DeadlineExceeded, match="the scenario did not come to its end within 5 s") as caught:
        await cancel_everywhere(scenario)
    [note] = caught.value.__notes__
    assert "run 1, cancelled at a park" in note
    assert "scenario (test_cancelling.py:" in note


async def test_a_check_that_hangs_fails(autojump_clock: trio.abc.Clock) -> None:
    with pytest.raises(DeadlineExceeded, match="the check did not come to its end within 3 s"):
        await cancel_everywhere(trio.lowlevel.checkpoint, trio.sleep_forever, deadline=3)


async def test_a_scenario_that_fails_by_itself_fails() -> None:
    async def scenario() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await cancel_everywhere(scenario)
    assert "nothing was cancelled" in caught.value.__notes__[0]


async def test_a_scenario_that_loops_without_end_is_told_so() -> None:
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        for _ in range(runs):
            await trio.lowlevel.checkpoint_if_cancelled()

    with pytest.raises(RuntimeError, match="a loop"):
        await cancel_everywhere(scenario)


async def test_a_cancellation_from_outside_ends_it() -> None:
    with trio.move_on_after(0.01) as limit:
        await cancel_everywhere(trio.sleep_forever, deadline=100)
    assert limit.cancelled_caught


async def test_foreign_traps_get_trios_answer() -> None:
    class Foreign:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield "no trap of Trio's"

    async def scenario() -> None:
        await Foreign()

    with pytest.raises(TypeError, match="unrecognized yield"):
        await cancel_everywhere(scenario)


async def test_the_profiler_of_whoever_uses_one_is_kept() -> None:
    import sys

    def profiler(*_: object) -> None: ...

    seen: list[object] = []

    async def scenario() -> None:
        await trio.lowlevel.checkpoint()

    async def check() -> None:
        seen.append(sys.getprofile())

    sys.setprofile(profiler)
    try:
        await cancel_everywhere(scenario, check)
    finally:
        sys.setprofile(None)
    assert set(seen) == {profiler}


def test_a_report_reads_well() -> None:
    report = CancelReport(
        (CancelPoint(1, "park", "send (chat.py:3)", True), CancelPoint(2, "wake", "send (chat.py:3)", False))
    )
    assert str(report).splitlines() == [
        "2 points, cancelled at 1 of them",
        "   1 park  send (chat.py:3): cancelled",
        "   2 wake  send (chat.py:3): went on to its end",
    ]
