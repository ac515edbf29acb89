"""What the chat's page shows of a full house: long answers come to it in pages."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewWindow, in_each_form
from tests.chat.load import open_client, text_frame
from wsframework.chat.history import MISSED_MESSAGES, PAGE_MESSAGES
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS

if TYPE_CHECKING:
    from tests.browser.stage import ChatServer

pytestmark = pytest.mark.browser


def say_while_it_is_down(server: ChatServer, count: int) -> list[tuple[str, str]]:
    """Stop the server, put messages into its history, and start it again."""
    server.stop()
    said = [("Clock", f"tick {number}") for number in range(count)]
    server.put(said)
    server.start()
    return said


@in_each_form
def test_what_a_window_missed_comes_in_pages(new_window: NewWindow, server: ChatServer) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    ada.say("hello")
    ada.wait_said(1)
    said = [("Ada", "hello"), *say_while_it_is_down(server, 2 * PAGE_MESSAGES + 7)]
    ada.wait_online()
    assert ada.wait_said(len(said)) == said
    expect(ada.log).not_to_contain_text("loaded anew")
    # And so does what is missed after that: the window knows what it has.
    said += say_while_it_is_down(server, PAGE_MESSAGES + 1)
    ada.wait_online()
    assert ada.wait_said(len(said)) == said
    ada.say("goodbye")
    assert ada.wait_said(len(said) + 1) == [*said, ("Ada", "goodbye")]
    say_while_it_is_down(server, MISSED_MESSAGES + 1)
    ada.wait_online()
    expect(ada.log).to_contain_text("loaded anew")
    assert len(ada.wait_said(PAGE_MESSAGES)) == PAGE_MESSAGES


@in_each_form
def test_people_and_rooms_come_in_pages(new_window: NewWindow, server: ChatServer) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    many = max(PAGE_PEOPLE, PAGE_ROOMS) + 10
    with ExitStack() as clients:
        for number in range(many):
            # From two addresses, for one has a limit.
            source = f"127.0.0.{2 + number % 2}"
            client, _ = open_client(server.port, f"person {number}", source=source)
            clients.enter_context(client)
            client.sendall(text_frame({"type": "join", "id": 3, "room": f"room{number}"}))
            receive_answer(client)
        expect(ada.page.locator("#subtitle")).to_have_text(f"{many + 1} people")
        bob = new_window("Bob")
        expect(bob.page.locator("#subtitle")).to_have_text(f"{many + 2} people")
        for window, button, entries, count in (
            (bob, "More people", bob.people, many + 2),
            (bob, "More rooms", bob.page.locator("#others li"), many),
        ):
            expect(entries).not_to_have_count(count)
            window.page.get_by_role("button", name=button).click()
            expect(entries).to_have_count(count)
            expect(window.page.get_by_role("button", name=button)).to_be_hidden()
    # The crowd is none any more: who is left is known by name again.
    for window in (ada, bob):
        expect(window.page.locator("#subtitle")).to_have_text("2 people")
        expect(window.people.locator("bdi")).to_have_text(["Ada", "Bob"])


def receive_answer(client: socket.socket) -> None:
    data = b""
    while b'"re":3' not in data:
        data = data[-10:] + client.recv(65536)
