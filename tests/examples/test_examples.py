from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from examples import deadlines, echo, guards, lifespan, pages, push, subprotocols
from tests.examples.conftest import Serve, connect
from wsframework import App

# An experiment and no program to start from; tests/docs runs it.
EXPERIMENTS = {"torn_frames.py"}
FILES = sorted(
    file for file in (Path(__file__).parents[2] / "examples").glob("*.py") if file.name not in EXPERIMENTS
)
SERVERS = [file for file in FILES if "client" not in file.stem]


async def refusal(url: str, headers: Mapping[str, str] | None = None) -> ConnectionRejected:
    """Return the HTTP answer that a client gets in place of a connection."""
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
        async with connect(url, headers=headers):
            pass
    (answer,) = caught.value.exceptions
    assert isinstance(answer, ConnectionRejected)
    return answer


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_example_is_short_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text()
    assert 15 <= len(text.splitlines()) <= 42
    assert f"\npython examples/{file.name}" in text
    assert "\nif __name__ == " in text


@pytest.mark.parametrize("file", SERVERS, ids=lambda file: file.stem)
def test_every_server_has_an_app_for_the_command_line(file: Path) -> None:
    assert isinstance(importlib.import_module(f"examples.{file.stem}").app, App)


async def test_echo_sends_back_text_and_bytes(serve: Serve) -> None:
    async with serve(echo.app) as url, connect(f"{url}/") as ws:
        for message in ("text", b"bytes", "", "ünï"):
            await ws.send_message(message)
            assert await ws.get_message() == message


@pytest.mark.parametrize(
    ("offered", "sent", "answer"),
    [
        (["json.add", "text"], "[1, 2, 3]", '{"sum": 6}'),
        (["text", "json.add"], "1 2 3.5", "6.5 in text"),
        (["unknown", "text.add"], "1 2", "3 in text.add"),
    ],
)
async def test_subprotocols_choose_the_handler(
    serve: Serve, offered: list[str], sent: str, answer: str
) -> None:
    async with serve(subprotocols.app) as url, connect(f"{url}/add", subprotocols=offered) as ws:
        await ws.send_message(sent)
        assert await ws.get_message() == answer


async def test_no_common_subprotocol_is_refused_with_the_names(serve: Serve) -> None:
    async with serve(subprotocols.app) as url:
        answer = await refusal(f"{url}/add")
    assert answer.status_code == 400
    assert answer.body is not None
    assert b"json.add, text.add, text" in answer.body


async def test_guards_refuse_with_their_own_http_answer(serve: Serve) -> None:
    async with serve(guards.app) as url:
        nobody = await refusal(f"{url}/cave")
        stranger = await refusal(f"{url}/cave", {"Authorization": "Bearer open barley"})
        foreigner = await refusal(f"{url}/cave", {"Authorization": "Bearer Sesam, öffne dich"})
        painting = await refusal(f"{url}/cave?painting", {"Authorization": "Bearer open sesame"})
        elsewhere = await refusal(f"{url}/cave", {"Origin": "https://evil.example"})
    assert (nobody.status_code, nobody.body) == (401, b"say the words\n")
    assert nobody.headers is not None
    assert (b"www-authenticate", b"Bearer") in [(name.lower(), value) for name, value in nobody.headers]
    assert (stranger.status_code, foreigner.status_code) == (401, 401)
    assert (painting.status_code, painting.body) == (503, b"the paint is wet\n")
    assert elsewhere.status_code == 403


async def test_guards_let_the_right_client_in_and_a_close_code_shows_it_out(serve: Serve) -> None:
    headers = {"Authorization": "Bearer open sesame", "Origin": "https://chat.example"}
    async with serve(guards.app) as url, connect(f"{url}/cave", headers=headers) as ws:
        assert await ws.get_message() == "welcome, ali baba"
        await ws.send_message("hi")
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
    assert closed.value.reason is not None
    assert (closed.value.reason.code, closed.value.reason.reason) == (4000, "speak up")


async def test_push_ticks_at_the_pace_that_the_client_sets(serve: Serve) -> None:
    async with serve(push.app) as url, connect(f"{url}/ticks") as ws:
        await ws.send_message("100")
        with trio.fail_after(30):
            assert [await ws.get_message() for _ in range(3)] == ["tick 1", "tick 2", "tick 3"]


async def test_a_lifespan_runs_beside_the_server_and_ends_with_it(serve: Serve) -> None:
    lifespan.state["seconds"] = 0
    async with serve(lifespan.app) as url, connect(f"{url}/uptime") as ws:
        await ws.send_message("?")
        assert await ws.get_message() == "up for 0 s"
        await trio.sleep(1.2)
        await ws.send_message("?")
        assert await ws.get_message() == "up for 1 s"
    # Served again, it begins again.
    async with serve(lifespan.app) as url, connect(f"{url}/uptime") as ws:
        await ws.send_message("?")
        assert await ws.get_message() == "up for 1 s"


async def test_a_slow_client_misses_pictures_and_gets_none_that_is_torn(serve: Serve) -> None:
    async with serve(deadlines.app) as url, connect(f"{url}/camera") as ws:
        await trio.sleep(2)  # not reading: the sockets' buffers fill up
        with trio.fail_after(30):
            pictures = [await ws.get_message() for _ in range(40)]
    numbers = [int.from_bytes(picture[:4]) for picture in pictures if isinstance(picture, bytes)]
    assert all(picture[4:] == deadlines.PICTURE for picture in pictures)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > len(numbers), "no picture was skipped: the client was not slow enough"


async def get(url: str, path: str) -> tuple[int, bytes]:
    """Return status and body of a plain HTTP answer."""
    host, _, port = url.removeprefix("ws://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = b"".join([chunk async for chunk in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_pages_and_a_health_check_share_the_port(serve: Serve) -> None:
    async with serve(pages.app) as url:
        status, body = await get(url, "/")
        assert (status, body) == (200, pages.PAGE.encode())
        async with connect(f"{url}/echo") as ws:
            await ws.send_message("hi")
            assert await ws.get_message() == "hi"
            status, body = await get(url, "/health")
            assert (status, json.loads(body)) == (200, {"status": "ok", "connections": 1})
        status, _ = await get(url, "/echo")
        assert status == 426
