from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from wsframework import App, Request, Response
from wsframework.chat import Chat
from wsframework.chat.page import ChatPage


async def page(path: str = "/ws/chat", room: str = "lobby") -> Response:
    return await ChatPage(path, room).show(Request("/", is_websocket=False))


def source_of(response: Response) -> str:
    return response.body.decode()


async def test_the_policy_allows_exactly_the_style_and_the_script_of_the_page() -> None:
    response = await page()
    directives = dict(
        directive.split(" ", 1) for directive in response.headers["content-security-policy"].split("; ")
    )
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", source_of(response), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[f"{kind}-src"] == f"'sha256-{digest}'"
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert "unsafe" not in response.headers["content-security-policy"]


async def test_the_page_is_html_and_sends_no_referrer() -> None:
    response = await page()
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["referrer-policy"] == "no-referrer"


async def test_the_script_never_makes_markup_of_text() -> None:
    source = source_of(await page())
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "srcdoc",
        "eval(",
    ):
        assert sink not in source


async def test_nothing_is_fetched_from_elsewhere() -> None:
    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [str(value) for name, value in attrs if name in ("src", "href", "action", "srcset")]
            assert not [name for name, _ in attrs if name.startswith("on") or name == "style"], (tag, attrs)

    links = Links()
    links.found = []
    links.feed(source_of(await page()))
    assert [link for link in links.found if not link.startswith(("data:", "#"))] == []


async def test_the_page_is_told_where_its_websocket_is_and_which_room_comes_first() -> None:
    source = source_of(await page('/a"b', "tea"))
    assert 'data-path="/a&quot;b"' in source
    assert 'data-room="tea"' in source
    assert "{{" not in source


@pytest.mark.parametrize(("where", "status"), [("/", 200), ("/talk", 404)])
async def test_the_page_is_at_the_root(where: str, status: int) -> None:
    app = App()
    app.install(Chat())
    response = await app.decide(Request(where, is_websocket=False))
    assert isinstance(response, Response)
    assert response.status == status


@pytest.mark.parametrize(("where", "status"), [("/", 404), ("/talk", 200)])
async def test_the_page_may_be_elsewhere(where: str, status: int) -> None:
    app = App()
    app.install(Chat(page="/talk"))
    response = await app.decide(Request(where, is_websocket=False))
    assert isinstance(response, Response)
    assert response.status == status


async def test_a_chat_may_have_no_page() -> None:
    app = App()
    app.install(Chat(page=None))
    response = await app.decide(Request("/", is_websocket=False))
    assert isinstance(response, Response)
    assert response.status == 404


async def test_the_websocket_answers_a_browser_that_opens_it_as_a_page_with_426() -> None:
    app = App()
    app.install(Chat())
    response = await app.decide(Request("/ws/chat", is_websocket=False))
    assert isinstance(response, Response)
    assert response.status == 426
