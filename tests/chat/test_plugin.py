from __future__ import annotations

import ast
import functools
import importlib.resources
import json
import logging
import socket
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket

import wsframework
import wsframework.chat
import wsframework.engines.redis
from tests.chat.people import Person, texts
from tests.chat.serving import serving
from wsframework import App, ConfigurationError, ListenError, PluginError
from wsframework.chat import Chat, HistoryError, Message
from wsframework.chat.history import HistoryStore


def imports(source: Path) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a file imports from wsframework."""
    found = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wsframework":
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "wsframework"]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{source}: a relative import"
    return found


def test_the_chat_uses_nothing_but_public_names() -> None:
    files = sorted(Path(wsframework.chat.__file__).parent.rglob("*.py"))
    assert len(files) >= 14
    for file in files:
        for module, name in imports(file):
            if module == "wsframework":
                public = name in wsframework.__all__ or name == "chat"
            elif module == "wsframework.engines.redis":
                public = name in wsframework.engines.redis.__all__
            else:
                public = module.startswith("wsframework.chat")
            assert public, f"{file.name} imports {name} from {module}"


def test_the_chat_touches_no_underscore_of_the_framework() -> None:
    own: set[str] = set()
    used: list[tuple[str, str]] = []
    for file in sorted(Path(wsframework.chat.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    own.add(node.attr)
                used.append((file.name, node.attr))
    assert [(file, name) for file, name in used if name not in own] == []


def test_what_a_program_needs_is_exported() -> None:
    for name in wsframework.chat.__all__:
        assert getattr(wsframework.chat, name).__module__.startswith("wsframework.chat.")


def test_the_page_is_in_the_package() -> None:
    page = importlib.resources.files("wsframework.chat").joinpath("page.html")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_it_is_installed_by_its_entry_point(tmp_path: Path) -> None:
    (entry,) = entry_points(group="wsframework.plugins", name="chat")
    assert entry.value == "wsframework.chat:Chat"
    app = App()
    app.install("chat", history=tmp_path / "chat.db", path="/talk", page=None)
    assert [(route.template.text, route.keys) for route in app.routes] == [
        ("/talk", ("superchat",)),
        ("/talk", ("chat",)),
        ("/talk", (None,)),
    ]


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"path": "ws"}, "the chat's path must be a fixed one"),
        ({"path": "/ws/{room}"}, "the chat's path must be a fixed one"),
        ({"room": "no spaces"}, "a room's name has"),
        ({"reserved_names": ["\u202e"]}, "a name has"),
    ],
)
def test_a_mistake_in_its_set_up_is_told_at_once(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigurationError, match=mistake):
        Chat(**options)


def test_installing_the_class_is_told_apart_from_installing_a_chat() -> None:
    with pytest.raises(PluginError, match=r"install an instance: Chat\(\)"):
        App().install(Chat)  # type: ignore[arg-type]


async def test_a_program_can_speak_and_listen(caplog: pytest.LogCaptureFixture) -> None:
    chat = Chat(reserved_names=["Clock"])
    app = App()
    app.install(chat)
    heard: list[Message] = []

    @chat.on_message
    def listen(message: Message) -> None:
        if message.text == "fail":
            raise RuntimeError("a listener's mistake")
        heard.append(message)

    async with serving(app) as server:
        ada = await Person.come(server, "Ada", "lobby")
        message = await chat.say("Lobby", "it is noon", name="Clock")
        assert await ada.hear(1) == [("Clock", "it is noon")]
        await ada.ask("say", room="lobby", text="fail")
        await ada.ask("say", room="lobby", text="thank you")
        assert heard[0] == message
        assert [(one.name, one.room, one.text) for one in heard[1:]] == [("Ada", "lobby", "thank you")]
        assert "a listener of the chat failed at message 2" in caplog.text
        for name in ("clock", "Cl\u043eck\ufe0f", "C1ock"):
            assert (await ada.ask("name", name=name))["code"] == "name_taken"
        for name in ("\u3164", "Clock\u202e"):
            assert (await ada.ask("name", name=name))["code"] == "invalid"
        assert (await ada.ask("name", name="\u2764\ufe0f Ada"))["name"] == "\u2764\ufe0f Ada"
        with pytest.raises(ValueError, match="a text has"):
            await chat.say("lobby", "", name="Clock")
    with pytest.raises(HistoryError):
        await chat.say("lobby", "too late", name="Clock")


async def test_what_was_said_is_there_after_a_restart(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    for start in range(2):
        app = App()
        app.install(Chat(history=tmp_path / "chat.db"))
        async with serving(app) as server:
            ada = await Person.come(server, "Ada")
            if start == 0:
                joined = await ada.ask("join", room="lobby")
                await ada.ask("say", room="lobby", text="before")
                seen = {"after": joined["last"], "log": joined["log"]}
            else:
                joined = await ada.ask("join", room="lobby", **seen)
                assert (texts(joined), joined["complete"]) == (["before"], True)


async def test_without_a_history_a_restart_is_told_honestly() -> None:
    logs: list[str] = []
    for _ in range(2):
        app = App()
        app.install(Chat())
        async with serving(app) as server:
            ada = await Person.come(server, "Ada")
            since = {"after": 0, "log": logs[0]} if logs else {}
            joined = await ada.ask("join", room="lobby", **since)
            assert joined["complete"] is not bool(logs)
            logs.append(joined["log"])


async def test_a_history_that_cannot_be_opened_ends_the_server_with_one_plain_error(tmp_path: Path) -> None:
    app = App()
    app.install(Chat(history=tmp_path / "nowhere" / "chat.db"))
    with pytest.raises(ConfigurationError, match="cannot open the chat history"):
        await app.serve("127.0.0.1", 0)


async def test_an_error_of_the_server_comes_out_of_the_chats_lifespan_as_it_is(tmp_path: Path) -> None:
    app = App()
    app.install(Chat(history=tmp_path / "chat.db"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError):
        await app.serve("127.0.0.1", taken.getsockname()[1])
    store = HistoryStore(tmp_path / "chat.db")
    store.open()  # it was closed properly
    store.close()


async def test_messages_said_while_the_server_drains_are_still_stored(tmp_path: Path) -> None:
    app = App()
    chat = Chat(history=tmp_path / "chat.db")
    app.install(chat)

    @app.websocket("/goodbye")
    async def goodbye(ws: wsframework.Connection) -> None:
        await ws.wait_draining()
        await chat.say("lobby", "the server is stopping", name="Server")

    from tests.chat.serving import connect

    async with serving(app) as server:
        await connect(server, "/goodbye")
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await trio.sleep(0.05)
    store = HistoryStore(tmp_path / "chat.db")
    store.open()
    assert [message.text for message in store.newest("lobby", upto=9).messages] == ["the server is stopping"]
    store.close()


async def test_the_chat_logs_to_its_own_logger() -> None:
    assert logging.getLogger("wsframework.chat").parent is logging.getLogger("wsframework")


async def test_the_chat_works_on_the_trio_websocket_host_too(tmp_path: Path) -> None:
    app = App()
    app.install(Chat(history=tmp_path / "chat.db"))

    async def speak(ws: trio_websocket.WebSocketConnection, **request: Any) -> dict[str, Any]:
        await ws.send_message(json.dumps(request))
        while True:
            value: dict[str, Any] = json.loads(await ws.get_message())
            if "re" in value:
                return value

    async with app.running(), trio.open_nursery() as nursery:
        serve = functools.partial(trio_websocket.serve_websocket, app, "127.0.0.1", 0, None)
        server = await nursery.start(serve)
        url = f"ws://127.0.0.1:{server.port}/ws/chat"
        with trio.fail_after(30):
            async with trio_websocket.open_websocket_url(url, subprotocols=["superchat"]) as ws:
                await speak(ws, type="hello", version=1, name="Ada")
                await speak(ws, type="join", room="lobby")
                said = await speak(ws, type="say", room="lobby", text="hello")
                page = await speak(ws, type="history", room="lobby", before=said["message"] + 1)
                assert texts(page) == ["hello"]
        nursery.cancel_scope.cancel()
