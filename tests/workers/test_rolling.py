"""SIGHUP replaces all workers, one after the other, and no client notices more than a Close frame."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from tests.workers.fakes import FakeLaunch, supervising
from tests.workers.load import Load
from tests.workers.processes import APP, QUIET, Crew, clients_of_all, crew, needs_proc
from wsframework.workers.page import Page
from wsframework.workers.rolling import Roller
from wsframework.workers.supervisor import Supervisor

pytestmark = needs_proc


def test_a_roll_replaces_every_worker_and_closes_each_client_with_a_close_frame(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        before = found.pids()

        async def roll() -> list[int]:
            async with clients_of_all(found.url, before) as clients:
                found.signal(signal.SIGHUP)
                return [await one.code() for one in clients.values()]

        assert trio.run(roll) == [1012, 1012]
        found.wait_for("roll.finished", workers=2)
        assert len(found.pids()) == 2
        assert not set(found.pids()) & set(before)
        # The new one of each pair is ready before the old one is told to go.
        order = [
            (entry["event"], entry["worker"])
            for entry in found.records
            if entry.get("event") in ("worker.ready", "worker.ended")
        ]
        assert order[2:] == [
            ("worker.ready", 3),
            ("worker.ended", 1),
            ("worker.ready", 4),
            ("worker.ended", 2),
        ]
        assert found.program.stop() == 0


def test_a_new_version_that_does_not_start_aborts_the_roll_and_a_later_one_is_taken(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        before = found.pids()
        (tmp_path / "echo.py").write_text("app = None\nraise OSError('typo')\n")

        async def fail_to_roll() -> None:
            async with clients_of_all(found.url, before) as clients:
                found.signal(signal.SIGHUP)
                entry = await trio.to_thread.run_sync(found.wait_for, "roll.aborted")
                assert entry["error"] == "echo.py:2: OSError: typo"
                # The traceback is logged once.
                (died,) = found.logged("worker.died")
                assert "raise OSError('typo')" in died["stack"]
                assert "stack" not in entry
                for one in clients.values():
                    assert await one.ask() == "hi"

        trio.run(fail_to_roll)
        assert found.pids() == before
        (tmp_path / "echo.py").write_text(APP)
        found.signal(signal.SIGHUP)
        found.wait_for("roll.finished", workers=2)
        assert not set(found.pids()) & set(before)


@asynccontextmanager
async def rolling(
    launch: FakeLaunch, workers: int, *, overlap: bool = True
) -> AsyncIterator[tuple[Supervisor, Roller]]:
    """Supervise workers, and begin to replace them."""
    async with supervising(launch, workers) as (supervisor, _):
        roller = Roller(supervisor, overlap=overlap)
        supervisor.start_soon(roller.run)
        roller.ask()
        yield supervisor, roller


@pytest.mark.parametrize("seconds", [0.0, 0.2, 3.0])
async def test_a_stop_ends_a_roll_and_no_worker_is_started_any_more(
    seconds: float, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    launch = FakeLaunch(serving=2)
    async with rolling(launch, 2) as (supervisor, roller):
        await launch.started(3)
        await trio.sleep(0.1)
        launch.processes[2].serve()  # the first old one is told to go, and takes its time
        await trio.sleep(seconds)
        supervisor.stop()
        roller.ask()
        for process in launch.processes:
            process.end(0)
        await trio.sleep(60)
        assert supervisor.workers == {}
    assert len(launch.processes) == 3
    events = [entry.__dict__["event"] for entry in caplog.records]
    assert "roll.aborted" not in events
    assert "worker.died" not in events


async def test_a_stop_while_a_new_worker_starts_is_no_failure(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeLaunch(serving=2)
    async with rolling(launch, 2) as (supervisor, _):
        await launch.started(3)
        supervisor.stop()
        for process in launch.processes[:2]:
            process.end(0)
        await trio.sleep(1)
        assert caplog.records == []


async def test_a_new_worker_that_dies_during_the_roll_aborts_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeLaunch(serving=4)
    async with rolling(launch, 3) as (supervisor, _):
        await launch.started(4)
        await trio.sleep(0.1)
        launch.processes[3].end(1)
        launch.processes[0].end(0)
        # Another one takes its place, and the next one of the roll is ready: it goes, and no old one does.
        await launch.started(6)
        for process in launch.processes[4:]:
            process.serve()
        await trio.sleep(1)
        old = [supervisor.workers[number].state for number in (2, 3)]
        assert old == ["ready", "ready"]
    (aborted,) = [entry for entry in caplog.records if entry.__dict__["event"] == "roll.aborted"]
    assert aborted.__dict__["fields"]["error"] == "worker 4 died after it was ready: status 1"


async def test_while_a_program_is_developed_a_change_ends_a_start_that_hangs(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeLaunch(serving=1)
    async with rolling(launch, 1, overlap=False) as (supervisor, roller):
        await launch.started(2)
        launch.serving = 3
        await trio.sleep(100)
        roller.ask()
        await launch.started(3)
        assert launch.processes[1].signals == [signal.SIGKILL]
        assert await launch.processes[0].hear() == ("drain", {"restarting": True})
        launch.processes[0].end(0)
        await trio.sleep(0.1)
        assert [worker.state for worker in supervisor.workers.values()] == ["ready"]
        assert caplog.records == []


async def test_while_a_program_is_developed_its_first_start_may_fail(
    autojump_clock: trio.testing.MockClock,
) -> None:
    launch, page = FakeLaunch(serving=0), Page.create(8)
    supervisor, ready = Supervisor(launch, page, lambda: None), trio.Event()
    roller = Roller(supervisor, overlap=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, 1, ready.set, roller.wait_asked)
        for number in range(8):
            await launch.started(number + 1)
            launch.processes[number].end(2)
            await trio.sleep(1000)
            before = trio.current_time()
            roller.ask()
        await launch.started(9)
        # However often it has failed: somebody has mended it, and waits.
        assert trio.current_time() == before
        launch.processes[8].serve()
        await ready.wait()
        supervisor.kill()
    page.close()


async def test_a_worker_that_was_being_added_when_a_roll_began_has_the_new_version_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    launch = FakeLaunch(serving=2)
    async with supervising(launch, 2) as (supervisor, _):
        roller = Roller(supervisor)
        supervisor.start_soon(roller.run)
        supervisor.add()
        await launch.started(3)
        roller.ask()
        await trio.sleep(0.1)
        launch.serving = 1000
        launch.processes[2].serve()  # with the version of before
        for process in launch.processes[:3]:
            assert await process.hear() == ("drain", {"restarting": True})
            process.end(0)
        await trio.sleep(1)
        assert not roller.rolling
        assert [place.worker.generation for place in supervisor.places] == [1, 1, 1]
        assert len(launch.processes) == 6


async def test_a_new_worker_that_dies_is_replaced_while_the_old_one_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    launch = FakeLaunch()
    async with rolling(launch, 2):
        await launch.started(3)
        await trio.sleep(0.1)
        # The old one is stopped: it says nothing and does not end.
        launch.processes[2].end(-signal.SIGKILL)
        with trio.fail_after(2):
            await launch.started(4)


def test_a_roll_takes_a_renewed_certificate_but_not_a_broken_one(tmp_path: Path) -> None:
    authority = trustme.CA()

    def renew() -> None:
        issued = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        issued.write_to_path(str(tmp_path / "cert.pem"))

    renew()
    with crew(tmp_path, 1, "--ssl-cert", "cert.pem") as found:
        assert found.url.startswith("wss://")
        port = int(found.url.rpartition(":")[2])
        first = certificate(port)
        renew()
        found.signal(signal.SIGHUP)
        found.wait_for("roll.finished")
        second = certificate(port)
        assert first != second
        (tmp_path / "cert.pem").write_text("nothing")
        found.signal(signal.SIGHUP)
        entry = found.wait_for("roll.aborted")
        assert entry["error"].startswith("cannot serve TLS with cert.pem: not PEM")
        assert certificate(port) == second


def certificate(port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        return tls.getpeercert(binary_form=True)


def test_rolls_lose_no_handshake_and_no_connection_without_a_close_frame(tmp_path: Path) -> None:
    with crew(tmp_path, text=QUIET) as found:
        load = trio.run(roll_under_load, found, 2, 100, 50.0)
        assert load.lost == []
        assert load.late <= 1 + load.handshakes // 100
        # Everybody was told at each roll, and came back.
        assert load.codes.keys() == {1012}
        assert load.codes[1012] >= 200
        assert found.logged("worker.died") == []


@pytest.mark.chaos
def test_many_rolls_of_four_workers_lose_nothing_under_two_thousand_clients(tmp_path: Path) -> None:
    rolls = int(os.environ.get("CHAOS_ROLLS", "20"))
    with crew(tmp_path, 4, text=QUIET) as found:
        load = trio.run(roll_under_load, found, rolls, 2000, 200.0)
        print(
            f"\n{load.handshakes} handshakes, {load.late} late, Close: {dict(load.codes)}, lost: {load.lost}"
        )
        assert load.lost == []
        assert load.codes.keys() == {1012}
        assert load.codes[1012] >= rolls * 2000
        assert found.logged("worker.died") == []


async def roll_under_load(found: Crew, rolls: int, staying: int, per_second: float) -> Load:
    load = Load(int(found.url.rpartition(":")[2]))
    async with trio.open_nursery() as nursery:
        for _ in range(staying):
            nursery.start_soon(load.stay)
        nursery.start_soon(load.come_and_go, per_second)
        for number in range(1, rolls + 1):
            await everybody_is_there(load, staying)
            found.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(found.wait_for, "roll.finished", number, 120.0)
        await everybody_is_there(load, staying)
        nursery.cancel_scope.cancel()
    return load


async def everybody_is_there(load: Load, staying: int) -> None:
    with trio.fail_after(60):
        while load.open < staying:  # noqa: ASYNC110
            await trio.sleep(0.05)
