"""The programs of examples/chat, as people would use them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionRejected

from examples.chat import bot, client, embedded, own
from tests.chat.people import Person
from tests.chat.serving import connect as connect_in_memory
from tests.chat.serving import serving
from tests.examples.conftest import connect
from wsframework import App
from wsframework.chat import Chat
from wsframework.testing import connect as connect_client
from wsframework.testing import request

FILES = sorted((Path(__file__).parents[2] / "examples" / "chat").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_example_is_short_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text()
    assert 15 <= len(text.splitlines()) <= 45
    assert f"\npython examples/chat/{file.name}" in text
    assert "\nif __name__ == " in text


async def test_the_embedded_chat_is_for_members_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where its history is
    answer = await request(embedded.app, "GET", "/enter")
    assert (answer.status, answer.headers["location"]) == (303, "/team")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert (await request(embedded.app, "GET", "/team")).status == 403
    assert "Chat" in (await request(embedded.app, "GET", "/team", {"Cookie": "member=yes"})).text
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True, allow_unwrapped=True):
        async with connect_client(embedded.app, "/team/ws", subprotocols=["superchat"]):
            pass
    async with connect_client(
        embedded.app, "/team/ws", subprotocols=["superchat"], headers={"Cookie": cookie}
    ) as ws:
        assert ws.subprotocol == "superchat"


async def test_the_bot_rolls_dice_and_its_name_is_its_own() -> None:
    async with serving(bot.app) as server:
        ada = await Person.come(server, "Ada", "lobby")
        assert (await ada.ask("name", name="dice"))["code"] == "name_taken"
        await ada.ask("say", room="lobby", text="!roll")
        question, (name, text) = await ada.hear(2)
        assert question == ("Ada", "!roll")
        assert name == "Dice"
        assert text in [f"Ada rolls {number}" for number in range(1, 7)]


async def test_ones_own_chat_tells_the_others(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(own.app) as server:
        ada = await connect_in_memory(server, "/rooms/tea?name=Ada")
        assert await ada.receive() == "here are: Ada"
        bob = await connect_in_memory(server, "/rooms/tea?name=Bob")
        assert await bob.receive() == "here are: Ada, Bob"
        assert await ada.receive() == "Bob comes in"
        await ada.send("hello")
        assert [await bob.receive(), await ada.receive()] == ["Ada: hello", "told 1"]
        for taken in ("/rooms/tea?name=Bob", "/rooms/tea"):
            other = await connect_in_memory(server, taken)
            await other.read_to_end()
            assert other.closed is not None
            assert other.closed.code == 4000
        await bob.vanish()
        assert await ada.receive() == "Bob has gone"


async def test_the_client_says_its_line_and_prints_what_it_hears(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    app = App()
    app.install(Chat())
    async with serving(app) as server:
        url = f"{server.urls[0]}/ws/chat"
        await client.main(url, "Hello!")
        assert capsys.readouterr().out == "In the lobby: Example\nExample: Hello!\n"
        async with connect(url, subprotocols=["superchat"]) as ws:
            await client.ask(ws, 1, type="hello", version=1, name="Example")
            with pytest.RaisesGroup(SystemExit, flatten_subgroups=True, allow_unwrapped=True):
                await client.main(url, "again")
