"""What the chat's page shows while the chat's Redis is away, and when it is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.browser.conftest import NewWindow

if TYPE_CHECKING:
    from tests.browser.stage import SharedChat

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("server", ["redis"], indirect=True)]


def test_messages_wait_in_the_page_until_redis_is_back(new_window: NewWindow, server: SharedChat) -> None:
    from playwright.sync_api import expect

    ada, bob = new_window("Ada"), new_window("Bob")
    ada.say("before")
    bob.wait_said(1)
    server.redis.kill()
    ada.say("meanwhile")
    expect(ada.page.get_by_text("Sending…")).to_be_visible()
    expect(ada.page.get_by_text("cannot store messages now")).to_be_visible()
    ada.say("and this")
    trio.run(server.redis.start)
    expected = [("Ada", "before"), ("Ada", "meanwhile"), ("Ada", "and this")]
    assert bob.wait_said(3) == expected
    assert ada.wait_said(3) == expected
    expect(ada.page.get_by_text("Sending…")).to_have_count(0)
    expect(ada.page.get_by_text("cannot store messages now")).to_be_hidden()
    bob.say("welcome back")
    assert ada.wait_said(4) == [*expected, ("Bob", "welcome back")]


def test_whoever_opens_the_page_while_redis_is_away_comes_in_when_it_is_back(
    new_window: NewWindow, server: SharedChat
) -> None:
    from playwright.sync_api import expect

    server.redis.kill()
    late = new_window()
    late.open()
    late.name_field.fill("Late")
    late.page.get_by_role("button", name="Start chatting").click()
    expect(late.page.get_by_text("Connection lost")).to_be_visible()
    trio.run(server.redis.start)
    late.wait_online()
    late.say("at last")
    assert late.wait_said(1) == [("Late", "at last")]
