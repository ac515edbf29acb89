"""The chat's page in Chromium, used as people use it."""

from __future__ import annotations

import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewWindow, in_each_form

if TYPE_CHECKING:
    from tests.browser.stage import ChatServer, Window

pytestmark = pytest.mark.browser

MARKUP = """<b>bold</b> <img src=x onerror="alert('image')"><script>alert('script')</script> &lt; {{path}}"""


def isolated(name: str) -> str:
    """Return a name as it stands in a sentence of the page: apart from what is written the other way."""
    return f"\u2068{name}\u2069"


def expect_people(window: Window, *people: str) -> None:
    from playwright.sync_api import expect

    expect(window.people.locator("bdi")).to_have_text(list(people))


@in_each_form
def test_two_people_talk(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    expect(ada.page.get_by_text("It is quiet here")).to_be_visible()
    bob = new_window("Bob")
    for window in (ada, bob):
        expect_people(window, "Ada", "Bob")
    expect(ada.log).to_contain_text(f"{isolated('Bob')} has come in")

    ada.writing.press_sequentially("Hel")
    expect(bob.page.get_by_text("is typing…")).to_contain_text("Ada")
    expect(bob.people.nth(0)).to_contain_text("typing…")
    ada.say("Hello, Bob")
    bob.wait_said(1)
    expect(bob.page.get_by_text("is typing…")).to_have_count(0)

    expected = [("Ada", "Hello, Bob")]
    for number in range(5):
        for window, name in ((bob, "Bob"), (ada, "Ada")):
            window.say(f"{name} {number}")
            expected.append((name, f"{name} {number}"))
            for reader in (ada, bob):
                assert reader.wait_said(len(expected)) == expected

    bob.page.close()
    expect_people(ada, "Ada")
    expect(ada.log).to_contain_text(f"{isolated('Bob')} has left")


@in_each_form
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_in_the_middle_leaves_no_gap_and_no_duplicate(
    new_window: NewWindow, server: ChatServer, number: signal.Signals
) -> None:
    from playwright.sync_api import expect

    ada, bob = new_window("Ada"), new_window("Bob")
    expected: list[tuple[str, str]] = []

    def both_say(count: int, what: str) -> None:
        for index in range(count):
            for window, name in ((ada, "Ada"), (bob, "Bob")):
                window.say(f"{what} {index}")
                expected.append((name, f"{what} {index}"))

    both_say(5, "before")
    server.stop(number)  # with messages on their way
    expect(ada.page.get_by_role("status")).not_to_have_text("Online")
    expect(ada.page.get_by_text("Connection lost")).to_be_visible()
    both_say(5, "meanwhile")
    expect(ada.page.get_by_text("Sending…").first).to_be_visible()
    server.start()
    for window in (ada, bob):
        window.wait_online()
    both_say(5, "after")
    shown = ada.wait_said(len(expected))
    assert bob.wait_said(len(expected)) == shown
    assert sorted(shown) == sorted(expected)
    for name in ("Ada", "Bob"):
        assert [entry for entry in shown if entry[0] == name] == [
            entry for entry in expected if entry[0] == name
        ]
    for window in (ada, bob):
        expect(window.page.get_by_text("Sending…")).to_have_count(0)
        expect_people(window, "Ada", "Bob")
        expect(window.log).not_to_contain_text("loaded anew")
    # And whoever comes now sees the same.
    assert new_window("Eve").wait_said(len(expected)) == shown


def test_what_people_type_is_never_markup(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada = new_window("<b>Ada</b><script>")
    bob = new_window("Bob")
    ada.writing.press_sequentially("x")
    expect(bob.page.get_by_text("is typing…")).to_contain_text("<b>Ada</b><script>")
    ada.say(MARKUP)
    for window in (ada, bob):
        assert window.wait_said(1) == [("<b>Ada</b><script>", MARKUP)]
        assert window.page.locator("#log script, #log img, #log b, #people b, #typing b").count() == 0
    # The fixture fails if a dialog, an error or a refused script came up anywhere.


def test_nothing_but_the_pages_own_script_can_run(new_window: NewWindow, server: ChatServer) -> None:
    ada = new_window("Ada")
    with urllib.request.urlopen(server.url, timeout=30) as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # What an attacker would have to get past, tried with the power of a debugger:
    ended = ada.page.evaluate(
        """() => Object.fromEntries(Object.entries({
             markup: () => document.body.insertAdjacentHTML("beforeend", "<i>x</i>"),
             handler: () => document.createElement("img").setAttribute("onerror", "window.ran = true"),
             script: () => { const script = document.createElement("script");
                             script.textContent = "window.ran = true"; document.body.append(script); },
             frame: () => { document.createElement("iframe").srcdoc = "<script>parent.ran = true</script>"; },
           }).map(([name, attempt]) => { try { attempt(); return [name, "done"]; }
                                         catch (error) { return [name, error.name]; } }))"""
    )
    assert ended == dict.fromkeys(("markup", "handler", "script", "frame"), "TypeError")
    assert ada.page.evaluate("window.ran") is None
    ada.page.evaluate("document.body.setAttribute('style', 'display: none')")
    assert ada.page.evaluate("getComputedStyle(document.body).display") != "none"
    assert any("Content Security Policy" in complaint for complaint in ada.complaints)
    ada.complaints.clear()


def test_the_page_asks_nobody_but_its_server(new_window: NewWindow, server: ChatServer) -> None:
    ada = new_window("Ada")
    ada.say("hello")
    ada.wait_said(1)
    others = [url for url in ada.requests if not url.startswith((server.url, "data:"))]
    assert others == []
    assert [url for url in ada.requests if url.startswith(server.url)] == [server.url]


@in_each_form
def test_older_messages_come_when_one_scrolls_up(new_window: NewWindow, server: ChatServer) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    # Faster than a person types, as the page itself would.
    ada.page.evaluate(
        """async ({ url, count }) => {
            const ws = new WebSocket(url, ["superchat"]);
            await new Promise((resolve) => { ws.onopen = resolve; });
            const ask = (request) => new Promise((resolve, reject) => {
              ws.onmessage = ({ data }) => { if ("re" in JSON.parse(data)) resolve(JSON.parse(data)); };
              ws.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
              ws.send(JSON.stringify(request));
            });
            await ask({ type: "hello", version: 1, name: "Clock" });
            await ask({ type: "join", room: "lobby" });
            for (let number = 0; number < count;) {
              // Past the burst, slower than the rate: so many refusals would end with 1008.
              if (number > 50) await new Promise((resolve) => setTimeout(resolve, 60));
              const answer = await ask({ type: "say", room: "lobby", text: `number ${number}` });
              if (answer.type === "said") number += 1;
              else await new Promise((resolve) => setTimeout(resolve, 1000 * answer.retry_after + 100));
            }
            ws.onclose = null;
            ws.close();
        }""",
        {"url": server.url.replace("http", "ws") + "ws/chat", "count": 120},
    )
    bob = new_window("Bob")
    assert [text for _, text in bob.wait_said(50)] == [f"number {number}" for number in range(70, 120)]
    expect(bob.page.get_by_text("number 119", exact=True)).to_be_in_viewport()
    for count in (100, 120):
        first = bob.page.locator(".message .text").first
        text = first.text_content()
        # In one step: a second scroll could come after the older ones are there, and leave the reader.
        bob.log.evaluate("log => { log.scrollTop = 0; }")
        bob.wait_said(count)
        # Whoever was reading there is still there.
        expect(bob.page.get_by_text(str(text), exact=True)).to_be_in_viewport()
    assert [text for _, text in bob.said()] == [f"number {number}" for number in range(120)]
    expect(bob.page.get_by_role("button", name="Show older messages")).to_have_count(0)
    ada.say("new")
    expect(bob.page.get_by_role("button", name="New messages")).to_be_visible()
    bob.page.get_by_role("button", name="New messages").click()
    expect(bob.page.get_by_text("new", exact=True)).to_be_in_viewport()


@in_each_form
def test_a_taken_name_is_told_with_one_that_is_free(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    new_window("Ada")
    other = new_window()
    other.open()
    other.name_field.fill("ada")
    other.name_field.press("Enter")
    expect(
        other.page.get_by_role("alert").filter(has_text=f"Somebody is called {isolated('ada')} already.")
    ).to_be_visible()
    expect(other.name_field).to_have_value("ada 2")
    other.name_field.press("Enter")
    other.wait_online()
    expect_people(other, "Ada", "ada 2")


@in_each_form
def test_a_new_name_is_told_to_everybody(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada, bob = new_window("Ada"), new_window("Bob")
    ada.page.get_by_role("button", name="Change your name").click()
    expect(ada.name_field).to_have_value("Ada")
    ada.name_field.fill("Bob")
    ada.name_field.press("Enter")
    expect(ada.page.get_by_text(f"Somebody is called {isolated('Bob')} already.")).to_be_visible()
    ada.name_field.fill("Grace")
    ada.name_field.press("Enter")
    expect_people(bob, "Bob", "Grace")
    expect(bob.log).to_contain_text(f"{isolated('Ada')} is now called {isolated('Grace')}")
    # Bob may hear of it first; until the dialog is closed, keys go to it.
    expect(ada.page.get_by_role("dialog")).to_have_count(0)
    ada.say("it is me")
    assert bob.wait_said(1) == [("Grace", "it is me")]


@in_each_form
def test_rooms_are_apart_and_tell_what_was_not_read(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada, bob = new_window("Ada"), new_window("Bob")
    ada.page.get_by_label("Join or make a room").fill("#Tea-Time")
    ada.page.get_by_role("button", name="Join", exact=True).click()
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("tea-time")
    ada.say("anybody here?")
    ada.wait_said(1)
    bob.say("hello, lobby")
    lobby = ada.page.get_by_role("list", name="Your rooms").get_by_role("button", name="lobby")
    expect(lobby).to_contain_text("1")
    expect(ada.page).to_have_title("(1) #tea-time · Chat")
    lobby.click()
    assert ada.wait_said(1) == [("Bob", "hello, lobby")]
    expect(ada.page).to_have_title("#lobby · Chat")
    # A room can be handed on as a link.
    assert new_window("Eve", "#tea-time").wait_said(1) == [("Ada", "anybody here?")]
    ada.page.keyboard.press("Alt+ArrowDown")
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("tea-time")
    expect_people(ada, "Ada", "Eve")
    ada.page.get_by_role("button", name="Leave this room").click()
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("lobby")


def test_a_room_that_cannot_be_is_told(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    ada.page.get_by_label("Join or make a room").fill("no spaces")
    ada.page.get_by_label("Join or make a room").press("Enter")
    expect(ada.page.get_by_role("alert").filter(has_text="no spaces")).to_be_visible()


@in_each_form
def test_a_page_that_is_loaded_again_is_the_same_person_in_the_same_rooms(new_window: NewWindow) -> None:
    ada = new_window("Ada", "#tea")
    bob = new_window("Bob", "#tea")
    ada.say("hello")
    ada.wait_said(1)
    ada.page.reload()
    ada.wait_online()
    assert ada.wait_said(1) == [("Ada", "hello")]
    expect_people(bob, "Ada", "Bob")
    ada.say("still me")
    assert bob.wait_said(2)[-1] == ("Ada", "still me")


def test_everything_can_be_done_with_the_keyboard(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada = new_window()
    ada.open()
    keyboard = ada.page.keyboard
    keyboard.type("Ada")  # the question for a name has the focus
    keyboard.press("Enter")
    ada.wait_online()
    expect(ada.writing).to_be_focused()
    keyboard.type("two")
    keyboard.press("Shift+Enter")
    keyboard.type("lines")
    keyboard.press("Enter")
    assert ada.wait_said(1) == [("Ada", "two\nlines")]
    reached = set()
    for _ in range(12):
        keyboard.press("Tab")
        reached.add(ada.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"room", "room-problem"} & reached == {"room"}
    assert {"rename", "leave", "log", "text", "send"} <= reached
    ada.page.get_by_role("button", name="Change your name").focus()
    keyboard.press("Enter")
    expect(ada.name_field).to_be_focused()
    keyboard.press("Escape")
    expect(ada.page.get_by_role("dialog")).to_have_count(0)


def test_screen_readers_find_a_name_for_everything_and_are_told_what_is_new(new_window: NewWindow) -> None:
    ada = new_window("Ada")
    nameless = ada.page.locator("button, input, textarea, nav, aside, dialog, [role]").evaluate_all(
        """nodes => nodes.filter(node => {
             const role = node.getAttribute("role");
             if (["status", "alert", "separator"].includes(role)) return false;
             const by = node.getAttribute("aria-labelledby");
             return !(node.getAttribute("aria-label") || (by && document.getElementById(by)?.textContent)
                      || (node.labels && node.labels.length) || node.textContent.trim());
           }).map(node => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert ada.page.locator("html").get_attribute("lang") == "en"
    assert ada.log.get_attribute("aria-live") == "polite"
    assert ada.log.get_attribute("aria-label") == "Messages in lobby"
    hidden_pictures = ada.page.locator("svg:not([aria-hidden=true]), .avatar:not([aria-hidden=true])")
    assert hidden_pictures.count() == 0


CONTRAST = """(selectors) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const rgb = (colours) => { brush.clearRect(0, 0, 1, 1);
    for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (colour) => { const [r, g, b] = colour.map((value) => { value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  return Object.fromEntries(selectors.map((selector) => {
    const node = document.querySelector(selector);
    const grounds = [];
    for (let at = node; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const [one, two] = [light(rgb([...grounds, getComputedStyle(node).color])), light(rgb(grounds))];
    return [selector, (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)];
  }));
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(new_window: NewWindow, dark: bool) -> None:
    ada, bob = new_window("Ada", dark=dark), new_window("Bob")
    ada.say("own")
    ada.wait_said(1)
    bob.say("of others")
    ada.wait_said(2)
    selectors = [
        "h1", "#subtitle", "#state", ".own .text", ".message:not(.own) .text", ".meta time", ".note", "h2",
        ".room", ".count", "#my-name", ".plain", ".avatar", ".person bdi", ".aside", "#text",
    ]  # fmt: skip
    ratios = ada.page.evaluate(CONTRAST, selectors)
    # WCAG 2.2, success criterion 1.4.3 (level AA)
    assert {selector: round(ratio, 2) for selector, ratio in ratios.items() if ratio < 4.5} == {}


def test_the_page_fits_a_phone(new_window: NewWindow) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada", width=360, height=640)
    new_window("Bob")
    ada.say("a-very-long-word-" * 20)
    ada.wait_said(1)
    page = ada.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(
        "document.getElementById('log').scrollWidth <= document.getElementById('log').clientWidth"
    )
    expect(ada.people.first).not_to_be_in_viewport()
    page.get_by_role("button", name="People").click()
    expect(ada.people.first).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(ada.people.first).not_to_be_in_viewport()
    page.get_by_role("button", name="Rooms").click()
    page.get_by_label("Join or make a room").fill("tea")
    page.get_by_label("Join or make a room").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("tea")
    expect(page.get_by_label("Join or make a room")).not_to_be_in_viewport()
    expect(ada.writing).to_be_in_viewport()
    expect(page.get_by_role("status")).to_be_in_viewport()


@in_each_form
def test_the_state_of_the_connection_is_seen_and_trying_can_be_hurried(
    new_window: NewWindow, server: ChatServer
) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    expect(ada.page.get_by_role("status")).to_have_text("Online")
    server.stop()
    expect(ada.page.get_by_text("Connection lost. Trying again in")).to_be_visible()
    time.sleep(3)  # so that the next attempt is some seconds away
    server.start()
    retry = ada.page.get_by_role("button", name="Try now")
    if retry.is_visible():
        retry.click()
    ada.wait_online()
    expect(ada.page.get_by_text("Connection lost")).to_be_hidden()


@in_each_form
def test_whoever_was_away_for_too_long_is_told_so(new_window: NewWindow, server: ChatServer) -> None:
    from playwright.sync_api import expect

    ada = new_window("Ada")
    ada.say("hello")
    ada.wait_said(1)
    server.stop()
    server.forget()  # everything that Ada has seen
    server.start()
    expect(ada.log).to_contain_text("loaded anew")
    ada.say("fresh")
    assert ada.wait_said(1) == [("Ada", "fresh")]
