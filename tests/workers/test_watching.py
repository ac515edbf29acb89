from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.workers.fakes import FakeLaunch, supervising
from tests.workers.load import Load
from tests.workers.processes import QUIET, client, clients_of_all, crew, needs_proc
from wsframework.server.crowd import Figures, Phase
from wsframework.workers.page import Page
from wsframework.workers.supervisor import Supervisor
from wsframework.workers.watching import STUCK_SECONDS, watch_workers

Clock = trio.testing.MockClock


async def beat(page: Page, slot: int, seconds: float) -> None:
    mine = Page.attach(page.fd, slot, trio.current_time)
    mine.enter(Phase.SERVING)
    with trio.move_on_after(seconds):
        while True:
            mine.beat(Figures())
            await trio.sleep(0.5)


async def test_a_worker_whose_heart_stops_is_aborted_and_then_killed(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 2) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, STUCK_SECONDS)
        nursery.start_soon(beat, page, 0, 1000)
        nursery.start_soon(beat, page, 1, 10)
        await trio.sleep(38)
        healthy, stuck = launch.processes
        assert stuck.signals == []
        await trio.sleep(2.5)
        assert stuck.signals == [signal.SIGABRT]
        await trio.sleep(3)
        assert stuck.signals == [signal.SIGABRT, signal.SIGKILL]
        assert healthy.signals == []
        # Its successor is ready within 35 seconds of the last heartbeat.
        assert launch.at[2] - 10 < 35
        nursery.cancel_scope.cancel()
    (entry,) = [entry for entry in caplog.records if entry.__dict__.get("event") == "worker.stuck"]
    assert entry.__dict__["fields"]["worker"] == 2


async def test_a_worker_that_imports_or_ends_its_lifespans_may_take_longer(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, STUCK_SECONDS)
        mine = Page.attach(page.fd, 0, trio.current_time)
        await trio.sleep(100)
        mine.enter(Phase.SERVING)
        mine.beat(Figures())
        mine.enter(Phase.STOPPED)
        await trio.sleep(100)
        assert launch.processes[0].signals == []
        nursery.cancel_scope.cancel()


async def test_a_start_that_hangs_is_ended_after_the_first_round(autojump_clock: Clock) -> None:
    launch = FakeLaunch(serving=1)
    async with supervising(launch, 1) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, STUCK_SECONDS)
        nursery.start_soon(beat, page, 0, 1000)
        supervisor.add()
        await launch.started(2)
        hanging = launch.processes[1]
        hanging.run()
        await trio.sleep(295)
        assert hanging.signals == []
        await trio.sleep(8)
        assert hanging.signals == [signal.SIGABRT, signal.SIGKILL]
        assert len(supervisor.places) == 1
        nursery.cancel_scope.cancel()


async def test_a_program_that_starts_slowly_may_take_some_times_as_long_later(autojump_clock: Clock) -> None:
    launch, page = FakeLaunch(serving=0), Page.create(8)
    supervisor, ready = Supervisor(launch, page, lambda: None), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, 1, ready.set)
        watcher = trio.CancelScope()
        nursery.start_soon(watch_within, watcher, supervisor, page)
        await launch.started(1)
        await trio.sleep(1000)
        assert launch.processes[0].signals == []
        launch.processes[0].serve()
        await ready.wait()
        assert supervisor.start_seconds == pytest.approx(5000)
        watcher.cancel()
        supervisor.kill()
    page.close()


async def watch_within(scope: trio.CancelScope, supervisor: Supervisor, page: Page) -> None:
    with scope:
        await watch_workers(supervisor, page, STUCK_SECONDS)


async def test_time_in_which_the_machine_slept_does_not_count(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, STUCK_SECONDS)
        mine = Page.attach(page.fd, 0, trio.current_time)
        mine.enter(Phase.SERVING)
        mine.beat(Figures())
        await trio.sleep(1)
        autojump_clock.jump(3600)
        await trio.sleep(1)
        mine.beat(Figures())
        await trio.sleep(10)
        assert launch.processes[0].signals == []
        nursery.cancel_scope.cancel()


async def test_no_heartbeat_counts_where_a_debugger_may_stop_the_worker(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, None)
        nursery.start_soon(beat, page, 0, 1)
        await trio.sleep(1000)
        assert launch.processes[0].signals == []
        nursery.cancel_scope.cancel()


async def test_a_worker_that_does_not_end_in_its_own_time_is_killed(autojump_clock: Clock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 2) as (supervisor, page), trio.open_nursery() as nursery:
        nursery.start_soon(watch_workers, supervisor, page, STUCK_SECONDS)
        supervisor.remove()
        await trio.sleep(19)
        assert launch.processes[1].signals == []
        await trio.sleep(2)
        assert launch.processes[1].signals == [signal.SIGKILL]
        nursery.cancel_scope.cancel()


@needs_proc
def test_a_blocked_worker_logs_its_stacks_and_is_replaced(tmp_path: Path) -> None:
    with crew(tmp_path, stuck=2) as found:
        victim, survivor = found.pids()

        async def block() -> None:
            async with clients_of_all(found.url, [victim, survivor]) as clients:
                await clients[victim].ws.send_message("block")
                assert await clients[victim].code() == 1006
                assert await clients[survivor].ask() == "hi"

        trio.run(block)
        found.wait_for("worker.ready", 3)
        assert found.logged("worker.stuck", pid=victim)
        assert found.logged("worker.died", pid=victim, signal="SIGABRT")
        stacks = "\n".join(line for line in found.program.errors if not line.startswith("{"))
        assert re.search(f'File "{tmp_path}/echo.py", line [0-9]+ in echo\n', stacks)


@needs_proc
def test_a_stopped_worker_costs_its_own_clients_only_and_is_replaced(tmp_path: Path) -> None:
    with crew(tmp_path, stuck=2.5) as found:
        victim, survivor = found.pids()

        async def stop() -> None:
            async with clients_of_all(found.url, [victim, survivor]) as clients:
                os.kill(victim, signal.SIGSTOP)
                while not found.logged("worker.died"):
                    # Newcomers do not wait for the stopped one.
                    async with client(found.url) as newcomer:
                        assert newcomer.pid != victim
                    await trio.sleep(0.05)
                assert await clients[victim].code() == 1006
                assert await clients[survivor].ask() == "hi"

        trio.run(stop)
        found.wait_for("worker.ready", 3)
        assert found.logged("worker.died", pid=victim, signal="SIGKILL")
        assert set(found.pids()) > {survivor}


@pytest.mark.chaos
@needs_proc
@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGKILL, 2), (signal.SIGSTOP, 35)], ids=["kill", "stop"]
)
def test_a_worker_that_fails_under_load_costs_its_own_clients_only(
    tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    with crew(tmp_path, 4, text=QUIET) as found:
        victim = found.pids()[0]
        starts = [entry["seconds"] for entry in found.logged("worker.ready")]

        async def fail() -> tuple[Load, float]:
            load = Load(int(found.url.rpartition(":")[2]))
            async with trio.open_nursery() as nursery:
                for _ in range(400):
                    nursery.start_soon(load.stay)
                nursery.start_soon(load.come_and_go, 100.0)
                with trio.fail_after(60):
                    while load.open < 400:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                before = time.monotonic()
                os.kill(victim, number)
                await trio.to_thread.run_sync(found.wait_for, "worker.ready", 5, 120.0)
                took = time.monotonic() - before
                await trio.sleep(2)
                nursery.cancel_scope.cancel()
            return load, took

        load, took = trio.run(fail)
        print(f"\n{load.handshakes} handshakes, replaced after {took:.1f} s, slowest {load.slowest:.2f} s")
        # A quarter of those that stay, and a few that came and went.
        assert 95 <= len(load.lost) <= 140
        assert load.codes.keys() == set()
        # One more start-up beside the pause, on whatever machine this is.
        assert took < seconds + 2 * max(starts)
