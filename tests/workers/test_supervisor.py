from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.workers.fakes import FakeLaunch, supervising
from tests.workers.processes import APP, client, clients_of_all, crew, needs_proc
from wsframework.workers.page import Page
from wsframework.workers.supervisor import JITTER, StartFailed, Supervisor

Clock = trio.testing.MockClock


async def settle() -> None:
    """Let messages arrive."""
    await trio.sleep(0.01)


async def test_the_next_worker_starts_when_the_last_one_is_ready(autojump_clock: Clock) -> None:
    launch, page = FakeLaunch(serving=0), Page.create(8)
    ready = trio.Event()
    supervisor = Supervisor(launch, page, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, 2, ready.set)
        await settle()
        assert len(launch.processes) == 1
        launch.processes[0].serve()
        await settle()
        assert len(launch.processes) == 2
        assert not ready.is_set()
        launch.processes[1].serve()
        await ready.wait()
        supervisor.kill()
    page.close()


async def test_a_worker_of_the_first_round_that_fails_ends_all(autojump_clock: Clock) -> None:
    launch, page = FakeLaunch(serving=1), Page.create(8)
    stopped = trio.Event()
    supervisor = Supervisor(launch, page, stopped.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_second, launch)
        with pytest.raises(StartFailed, match="killed by SIGSEGV"):
            await supervisor.run(2, lambda: None)
    assert stopped.is_set()
    assert supervisor.workers == {}
    page.close()


async def fail_second(launch: FakeLaunch) -> None:
    await settle()
    launch.processes[1].end(-signal.SIGSEGV)
    assert await launch.processes[0].hear() == ("drain", {"restarting": False})
    launch.processes[0].end(0)


async def test_a_parent_that_fails_leaves_its_workers_to_end_by_themselves(autojump_clock: Clock) -> None:
    launch, page = FakeLaunch(), Page.create(8)
    ready = trio.Event()
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Supervisor(launch, page, lambda: None).run, 2, ready.set)
            await ready.wait()
            raise ZeroDivisionError
    for process in launch.processes:
        assert process.signals == []
        # The end of the channel: it drains, and ends.
        with pytest.raises(StopAsyncIteration):
            await process.hear()
        process.channel.close()
    page.close()


async def test_a_crash_loop_pauses_longer_each_time_up_to_half_a_minute(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1):
        for number in range(12):
            await launch.started(number + 1)
            launch.processes[number].end(1)
        await trio.sleep(60)
    pauses = [second - first for first, second in itertools.pairwise(launch.at)]
    for number, pause in enumerate(pauses):
        expected = min(30.0, 0.1 * 2**number)
        assert expected <= pause <= expected * (1 + JITTER) + 0.1, pauses


async def test_workers_that_never_become_ready_share_one_pause(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=4)
    async with supervising(launch, 4):
        for process in list(launch.processes):
            process.end(1)
        start = trio.current_time()
        with trio.move_on_after(600):
            for number in itertools.count(5):
                await launch.started(number)
                launch.processes[-1].end(1)
    # In the last five minutes one worker each half a minute, and not four.
    assert sum(at > start + 300 for at in launch.at) <= 11


async def test_workers_that_die_after_they_were_ready_share_the_longest_pauses(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 4) as (supervisor, _):
        start = trio.current_time()
        with trio.move_on_after(1200):
            for number in itertools.count():
                await launch.started(number + 1)
                launch.processes[number].end(1)
        # In the last ten minutes one worker each half a minute, and not four.
        assert sum(at > start + 600 for at in launch.at) <= 21
        # Once one of them lives, the others need not wait for their turn.
        await trio.sleep(2 * 30 * (1 + JITTER) + 10)
        states = [worker.state for worker in supervisor.workers.values()]
        assert states == ["ready"] * 4


async def test_a_restart_of_all_ends_the_pauses_also_of_those_that_wait_for_their_turn(
    autojump_clock: Clock,
) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 4) as (supervisor, _):
        with trio.move_on_after(1200):
            for number in itertools.count():
                await launch.started(number + 1)
                launch.processes[number].end(1)
        supervisor.next_generation()
        await trio.sleep(1)
        assert [worker.state for worker in supervisor.workers.values()] == ["ready"] * 4


async def test_no_more_workers_are_added_than_the_page_has_room_for_twice(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page):
        assert supervisor.most == page.slots // 2 == 32
        assert [supervisor.add() for _ in range(100)] == [True] * 31 + [False] * 69
        await trio.sleep(1)
        assert [worker.state for worker in supervisor.workers.values()] == ["ready"] * 32
        assert supervisor.remove()
        assert supervisor.add()
    assert "cannot start" not in caplog.text
    full = [entry for entry in caplog.records if entry.__dict__.get("event") == "workers.full"]
    assert full[0].__dict__["fields"]["workers"] == 32


async def test_starts_that_failed_long_ago_do_not_hold_up_a_replacement(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=2)
    async with supervising(launch, 2) as (supervisor, _):
        # Such as `wsframework workers add` while the program has a mistake.
        for number in range(3, 13):
            assert supervisor.add()
            await launch.started(number)
            launch.processes[-1].end(1)
        await trio.sleep(3600)
        killed = trio.current_time()
        launch.processes[0].end(-signal.SIGKILL)
        await launch.started(13)
        assert trio.current_time() - killed < 1
        launch.processes[-1].serve()
        await settle()


async def test_after_a_minute_of_service_the_pause_is_short_again(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1):
        for number in range(6):
            await launch.started(number + 1)
            launch.processes[number].end(1)
        await launch.started(7)
        await trio.sleep(61)
        before = trio.current_time()
        launch.processes[6].end(1)
        await trio.sleep(1)
    assert launch.at[7] - before < 0.2


async def test_a_process_that_cannot_be_started_is_tried_again(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, _):
        start, refusals = FakeLaunch.start, iter([OSError(11, "Resource temporarily unavailable")])

        def refuse(self: FakeLaunch, number: int, slot: int):  # type: ignore[no-untyped-def]
            for error in refusals:
                raise error
            return start(self, number, slot)

        monkeypatch.setattr(FakeLaunch, "start", refuse)
        launch.processes[0].end(1)
        await trio.sleep(1)
        assert [worker.state for worker in supervisor.workers.values()] == ["ready"]


async def test_a_worker_more_and_a_worker_less_but_one_stays(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, _):
        supervisor.add()
        await settle()
        assert len(supervisor.places) == 2
        supervisor.remove()
        supervisor.remove()
        assert await launch.processes[1].hear() == ("drain", {"restarting": True})
        launch.processes[1].end(0)
        await settle()
        assert [worker.number for worker in supervisor.workers.values()] == [1]
        assert supervisor.workers[1].state == "ready"


async def test_the_place_of_a_worker_that_has_died_is_given_up_before_that_of_one_that_serves(
    autojump_clock: Clock,
) -> None:
    launch = FakeLaunch(serving=2)
    async with supervising(launch, 2) as (supervisor, _):
        launch.processes[0].end(1)
        await launch.started(3)
        assert supervisor.remove()
        await settle()
        assert [worker.number for worker in supervisor.workers.values()] == [2]
        assert supervisor.workers[2].state == "ready"


async def test_a_worker_that_is_being_added_is_the_first_to_be_removed(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=1)
    async with supervising(launch, 1) as (supervisor, _):
        for _ in range(3):
            supervisor.add()
        await launch.started(2)
        removed = [supervisor.remove() for _ in range(4)]
        assert removed == [True, True, True, False]
        await trio.sleep(60)
        assert [worker.number for worker in supervisor.workers.values()] == [1]
        assert len(launch.processes) == 2


async def test_a_start_that_hangs_holds_up_others_for_half_a_minute(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=2)
    async with supervising(launch, 2) as (supervisor, _):
        supervisor.add()
        await launch.started(3)
        launch.serving = 4
        launch.processes[0].end(1)
        start = trio.current_time()
        await launch.started(4)
        assert trio.current_time() - start == pytest.approx(30, abs=1)
        await settle()
        assert [worker.state for worker in supervisor.workers.values()] == ["ready", "starting", "ready"]


async def test_a_worker_that_is_told_to_stop_in_a_lifespan_is_bounded_too(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=1)
    async with supervising(launch, 1) as (supervisor, _):
        supervisor.add()
        await launch.started(2)
        launch.processes[1].run()
        await settle()
        supervisor.stop()
        assert supervisor.workers[2].ends_by == trio.current_time() + 20


@needs_proc
def test_a_killed_worker_costs_its_own_clients_only_and_is_replaced(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        victim, survivor = found.pids()

        async def kill() -> float:
            async with clients_of_all(found.url, [victim, survivor]) as clients:
                os.kill(victim, signal.SIGKILL)
                start = time.monotonic()
                assert await clients[victim].code() == 1006
                assert await clients[survivor].ask() == "hi"
                await trio.to_thread.run_sync(found.wait_for, "worker.ready", 3)
                took = time.monotonic() - start
                assert await clients[survivor].ask("still here") == "still here"
                return took

        took = trio.run(kill)
        assert found.logged("worker.died", pid=victim, signal="SIGKILL")
        (replacement,) = set(found.pids()) - {survivor}
        first = [entry["seconds"] for entry in found.logged("worker.ready")][:2]
        # The pause is a tenth of a second, and the start takes as long as the first ones did.
        assert took < 1 + 5 * max(first)
        assert replacement != victim


@needs_proc
def test_sigterm_for_one_worker_drains_it_and_another_takes_its_place(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        first, second = found.pids()

        async def term() -> int:
            async with clients_of_all(found.url, [first, second]) as clients:
                os.kill(first, signal.SIGTERM)
                code = await clients[first].code()
                assert await clients[second].ask() == "hi"
                return code

        assert trio.run(term) == 1001
        found.wait_for("worker.ended", pid=first, status=0)
        found.wait_for("worker.ready", 3)
        assert found.logged("worker.died") == []
        assert trio.run(pid_of_server, found.url) in found.pids()


async def pid_of_server(url: str) -> int:
    async with client(url) as one:
        return one.pid


@pytest.mark.chaos
@needs_proc
def test_a_crash_loop_costs_a_hundredth_of_a_core(tmp_path: Path) -> None:
    text = "import os\nif os.path.exists('broken'):\n    raise OSError('broken')\n" + APP
    with crew(tmp_path, 2, text=text) as found:
        (tmp_path / "broken").touch()
        for pid in found.pids():
            os.kill(pid, signal.SIGKILL)
        # The pauses grow for a minute or two.
        found.wait_for("worker.started", 13, 240.0)
        parent, workers = cpu_seconds(found.parent)
        start = time.monotonic()
        found.wait_for("worker.started", 17, 300.0)
        took = time.monotonic() - start
        parent_after, workers_after = cpu_seconds(found.parent)
        share, workers_share = (parent_after - parent) / took, (workers_after - workers) / took
        print(f"\n{share:.2%} of a core in the parent, {workers_share:.2%} in workers that fail")
        assert took >= 4 * 30
        assert share < 0.002


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return what a process has used, and what its children that have ended have."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    tick = os.sysconf("SC_CLK_TCK")
    return own / tick, children / tick
