"""Addresses in messages become links, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewWindow

if TYPE_CHECKING:
    from tests.browser.stage import ChatServer

pytestmark = pytest.mark.browser

LINKED: list[tuple[str, list[tuple[str, str]]]] = [
    # The message, and the text and the target of each link in it.
    ("see https://example.com/a?b=c#d now", [("https://example.com/a?b=c#d", "https://example.com/a?b=c#d")]),
    (
        "http://one.example and (https://two.example/x_(y)), or https://three.example.",
        [
            ("http://one.example", "http://one.example/"),
            ("https://two.example/x_(y)", "https://two.example/x_(y)"),
            ("https://three.example", "https://three.example/"),
        ],
    ),
    ("HTTPS://EXAMPLE.COM/Path", [("HTTPS://EXAMPLE.COM/Path", "https://example.com/Path")]),
    ("http://[::1]:8000/", [("http://[::1]:8000/", "http://[::1]:8000/")]),
    # Punycode shows that this is not apple.
    ("https://\u0430pple.com/", [("https://\u0430pple.com/", "https://xn--pple-43d.com/")]),
    # An address ends where something begins that would hide what it is.
    ('http://a.example/"onmouseover="alert(1)', [("http://a.example/", "http://a.example/")]),
    ("http://a.example/<script>alert(1)</script>", [("http://a.example/", "http://a.example/")]),
    ("https://a.example/\u202egpj.exe", [("https://a.example/", "https://a.example/")]),
    ("https://a.example\u3164.evil.example/", [("https://a.example", "https://a.example/")]),
    ("https://a.example\\@evil.example", [("https://a.example", "https://a.example/")]),
    (
        "javascript:https://a.example/%0aalert(1)",
        [("https://a.example/%0aalert(1)", "https://a.example/%0aalert(1)")],
    ),
    ("blob:https://a.example/x", [("https://a.example/x", "https://a.example/x")]),
    ("((https://a.example/" + ")" * 3900, [("https://a.example/", "https://a.example/")]),
    ("https://a.example/[x](y){z}]", [("https://a.example/[x](y){z}", "https://a.example/[x](y)%7Bz%7D")]),
    (
        "https://a.example/" + "b" * 3900,
        [("https://a.example/" + "b" * 3900, "https://a.example/" + "b" * 3900)],
    ),
]

NOT_LINKED = [
    "javascript:alert(1)",
    "JaVaScRiPt://example.com/%0aalert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "ftp://example.com/",
    "//example.com/",
    "www.example.com",
    "http:example.com",
    "http:/example.com",
    "http:///example.com",
    "http:\\\\example.com",
    "https://",
    "https://%",
    "http://[::1",
    "https://bank.example@evil.example/",
    "https://bank.example:443@evil.example/",
    "xhttps://example.com/",
    '<a href="javascript:alert(1)">click</a>',
    "[click](javascript:alert(1))",
    "h\u200bttps://example.com/",
    "\uff48\uff54\uff54\uff50://example.com/",
]


def test_addresses_become_links_and_nothing_else_does(new_window: NewWindow) -> None:
    ada, bob = new_window("Ada"), new_window("Bob")
    texts = [text for text, _ in LINKED] + NOT_LINKED
    expected = [links for _, links in LINKED] + [[] for _ in NOT_LINKED]
    for count, text in enumerate(texts, 1):
        ada.say(text)
        for window in (ada, bob):
            said = window.wait_said(count)
            assert said[-1] == ("Ada", text)
    for window in (ada, bob):
        found = window.page.eval_on_selector_all(
            "#log .text",
            """nodes => nodes.map(node => [...node.children].map(
                 ({ tagName, textContent, href, title, rel, target }) =>
                   [tagName, textContent, href, title, rel, target]))""",
        )
        links = [[(text, target) for _, text, target, *_ in children] for children in found]
        assert links == expected
        for tag, _, target, title, rel, where in (link for children in found for link in children):
            assert (tag, title, rel, where) == ("A", target, "noopener noreferrer nofollow", "_blank")
        assert window.complaints == []


def test_a_link_opens_a_page_that_knows_nothing_of_the_chat(
    new_window: NewWindow, server: ChatServer
) -> None:
    ada = new_window("Ada")
    ada.say(f"come to {server.url}#tea, now")
    ada.wait_said(1)
    with ada.context.expect_page() as opened:
        ada.log.get_by_role("link").click()
    page = opened.value
    page.wait_for_load_state()
    assert page.url == f"{server.url}#tea"
    assert page.evaluate("[window.opener, document.referrer]") == [None, ""]
    assert ada.page.url != page.url
