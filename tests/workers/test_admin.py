from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.workers.fakes import FakeLaunch, supervising
from wsframework.errors import ListenError
from wsframework.server.crowd import Figures, Phase
from wsframework.workers.admin import Admin, admin_folder, memory_of, open_admin_socket, peer_uid
from wsframework.workers.page import Page
from wsframework.workers.rolling import Roller


async def test_figures_of_all_workers_and_their_sums(autojump_clock: trio.testing.MockClock) -> None:
    async with supervising(FakeLaunch(), 2) as (supervisor, page):
        slots = [Page.attach(page.fd, number) for number in range(2)]
        for count, slot in enumerate(slots, 1):
            slot.enter(Phase.SERVING)
            slot.tell(count)
            slot.beat(Figures(websockets=count, accepted=10, messages_received=100, loop_lag=0.001))
        admin = Admin(supervisor, Roller(supervisor), page)
        with open_admin_socket(None) as listener:
            assert listener is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(admin.serve, listener)
                await trio.sleep(1.9)
                slots[0].beat(Figures(websockets=1, accepted=10, messages_received=140, messages_sent=20))
                await trio.sleep(0.2)
                shown = json.loads(json.dumps(admin.answer(b'{"do": "show"}')))
                nursery.cancel_scope.cancel()
    first, second = shown["workers"]
    assert (first["worker"], first["state"], first["connections"]) == (1, "ready", 1)
    assert (first["messages_per_second"], second["messages_per_second"]) == (30, 0)
    assert second["loop_lag"] == 0.001
    total = shown["total"]
    assert (total["connections"], total["accepted"], total["messages_received"]) == (3, 20, 240)


async def test_counters_of_workers_that_have_ended_stay_in_the_sums(
    autojump_clock: trio.testing.MockClock,
) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page):
        Page.attach(page.fd, 0).beat(
            Figures(websockets=5, accepted=10, refused=1, messages_received=100, messages_sent=50)
        )
        launch.processes[0].end(1)
        await launch.started(2)
        Page.attach(page.fd, 0).beat(Figures(accepted=1, messages_sent=1))
        total = Admin(supervisor, Roller(supervisor), page).answer(b'{"do": "show"}')["total"]
    counters = {"accepted": 11, "refused": 1, "messages_received": 100, "messages_sent": 51}
    assert isinstance(total, dict)
    assert counters.items() <= total.items()
    assert total["websockets"] == 0


async def test_a_worker_without_fresh_heartbeats_is_shown_as_stuck() -> None:
    async with supervising(FakeLaunch(), 1) as (supervisor, page):
        slot = Page.attach(page.fd, 0, lambda: 1.0)
        slot.enter(Phase.SERVING)
        slot.beat(Figures())
        answer = Admin(supervisor, Roller(supervisor), page).answer(b'{"do": "show"}')
    (worker,) = json.loads(json.dumps(answer))["workers"]
    assert worker["state"] == "stuck"


async def test_workers_are_added_removed_and_restarted(autojump_clock: trio.testing.MockClock) -> None:
    launch = FakeLaunch()
    async with supervising(launch, 1) as (supervisor, page), trio.open_nursery() as nursery:
        roller = Roller(supervisor)
        nursery.start_soon(roller.run)
        admin = Admin(supervisor, roller, page)
        assert admin.answer(b'{"do": "remove"}') == {
            "error": "the last worker stays; stop the server instead"
        }
        assert admin.answer(b'{"do": "add"}') == {"done": "starting one more worker"}
        await launch.started(2)
        await trio.testing.wait_all_tasks_blocked()
        assert admin.answer(b'{"do": "remove"}') == {"done": "ending one worker"}
        assert admin.answer(b'{"do": "restart"}') == {"done": "restarting 1 workers, one after the other"}
        await launch.started(3)
        supervisor.most = 1
        assert "1 workers are the most" in str(admin.answer(b'{"do": "add"}'))
        for wrong in (b"", b"[]", b'{"do": "dance"}', b"\xff"):
            assert "not a request" in str(admin.answer(wrong))
        nursery.cancel_scope.cancel()


async def test_the_socket_answers_line_by_line_and_only_its_user_may_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "admin.sock")
    async with supervising(FakeLaunch(), 1) as (supervisor, page), trio.open_nursery() as nursery:
        admin = Admin(supervisor, Roller(supervisor), page)
        with open_admin_socket(path) as listener:
            assert listener is not None
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            nursery.start_soon(admin.serve, listener)
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(b'{"do": "add"}\n{"do":')
                assert "done" in json.loads(await stream.receive_some())
                await stream.send_all(b'"dance"}\n')
                assert "error" in json.loads(await stream.receive_some())
                await stream.send_all(b"x" * 5000)
                assert await stream.receive_some() == b""
            monkeypatch.setattr("wsframework.workers.admin.peer_uid", lambda client: 12345)
            async with await trio.open_unix_socket(path) as stream:
                assert "another user" in bytes(await stream.receive_some()).decode()
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()
    assert "admin.sock" not in os.listdir(tmp_path)


def test_two_servers_on_one_path_are_refused_and_a_stale_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    with (
        open_admin_socket(path),
        pytest.raises(ListenError, match="another server listens there"),
        open_admin_socket(path),
    ):
        pass
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with open_admin_socket(path) as listener:
        assert listener is not None


def test_sockets_of_parents_that_were_killed_are_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = admin_folder()
    folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as sockets:
        # A process that is not there may be another container's; one that is there may be about to listen.
        for name, listens in ((2**22 + 1, False), (2**22 + 2, True), (os.getppid(), False), ("mine", False)):
            one = sockets.enter_context(socket.socket(socket.AF_UNIX))
            one.bind(str(folder / f"{name}.sock"))
            if listens:
                one.listen()
        with open_admin_socket(None):
            left = {file.stem for file in folder.iterdir()}
    assert left == {str(2**22 + 2), str(os.getppid()), "mine", str(os.getpid())}


async def test_a_client_that_is_silent_longest_makes_room_for_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsframework.workers.admin._CLIENTS", 2)
    path = str(tmp_path / "admin.sock")
    async with supervising(FakeLaunch(), 1) as (supervisor, page), trio.open_nursery() as nursery:
        with open_admin_socket(path) as listener:
            assert listener is not None
            nursery.start_soon(Admin(supervisor, Roller(supervisor), page).serve, listener)
            async with contextlib.AsyncExitStack() as streams:
                first, second, third = [
                    await streams.enter_async_context(await trio.open_unix_socket(path)) for _ in range(3)
                ]
                with trio.fail_after(30):
                    assert await first.receive_some() == b""
                    for stream in (second, third, second):
                        await stream.send_all(b"{}\n")
                        assert "error" in json.loads(await stream.receive_some())
                    fourth = await streams.enter_async_context(await trio.open_unix_socket(path))
                    assert await third.receive_some() == b""
                    await fourth.send_all(b"[" * 4000 + b"\n")
                    assert "error" in json.loads(await fourth.receive_some())
            nursery.cancel_scope.cancel()


async def test_a_server_that_stops_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with supervising(FakeLaunch(), 1) as (supervisor, page):
        admin = Admin(supervisor, Roller(supervisor), page)
        supervisor.stop()
        for action in (b"restart", b"add", b"remove"):
            assert admin.answer(b'{"do": "%b"}' % action) == {"error": "the server is stopping"}


def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = admin_folder()
    assert folder == tmp_path / f"wsframework-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with open_admin_socket(None) as listener:
        assert listener is None
    assert "admin.unavailable" in caplog.text


def test_the_memory_of_a_process_that_is_gone_is_unknown() -> None:
    assert memory_of(2**22 + 1) == (None, None)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux says who the peer is")
def test_the_user_of_the_peer_is_known() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()
