"""What Chromium sends from pages of one's own and of others, and what the server makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.cli.process import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SITE = "tests.browser.foreign_site:app"


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    with serving(SITE, "--log-level", "warning") as program:
        yield program.url.replace("ws://", "http://")


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The same program on another port."""
    with serving(SITE, "--log-level", "warning") as program:
        yield program.url.replace("ws://", "http://")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def send_form(page: Page, url: str) -> int:
    """Send the page's form to `url`, and return the status of the answer."""
    page.locator("form").evaluate("(form, url) => { form.action = url }", url)
    with page.expect_response(url) as answer:
        page.get_by_role("button", name="Send").click()
    return answer.value.status


def fetch(page: Page, url: str, method: str) -> str:
    """Send a request without any CORS header of its own, and return what the page's script may read of it."""
    script = """([url, method]) => fetch(url, {method, credentials: "include"}).then(
        answer => String(answer.status), error => "blocked")"""
    return str(page.evaluate(script, [url, method]))


@pytest.fixture
def changes(page: Page, own: str) -> Iterator[list[str]]:
    """Return a list that gets, at the end, what the site was made to change."""
    before = len(page.request.get(f"{own}/changes").json())
    made: list[str] = []
    yield made
    assert page.request.get(f"{own}/changes").json()[before:] == made


@pytest.mark.parametrize("policy", ["", "no-referrer", "same-origin"])
def test_ones_own_page_may_send_forms_and_requests(
    page: Page, own: str, changes: list[str], policy: str
) -> None:
    page.goto(f"{own}/page?policy={policy}")
    assert fetch(page, f"{own}/change", "DELETE") == "200"
    # With "no-referrer" its Origin is "null".
    assert send_form(page, f"{own}/change") == 200
    changes += ["DELETE", "POST"]


@pytest.mark.parametrize("policy", ["", "no-referrer"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
def test_a_foreign_page_may_not(
    page: Page, own: str, other: str, changes: list[str], host: str, policy: str
) -> None:
    page.goto(f"{other.replace('127.0.0.1', host)}/page?policy={policy}")
    assert fetch(page, f"{own}/change", "POST") == "blocked"
    # The preflight request is answered; what it asks for is refused all the same.
    assert fetch(page, f"{own}/change", "DELETE") == "blocked"
    assert send_form(page, f"{own}/change") == 403
    changes += ["OPTIONS"]


def test_a_sandboxed_page_of_ones_own_may_not(page: Page, own: str, changes: list[str]) -> None:
    # Such a page shows what users have uploaded, for example. Its Origin is "null".
    page.goto(f"{own}/page?sandbox=yes")
    assert send_form(page, f"{own}/change") == 403


def test_a_link_from_a_foreign_page_works(page: Page, own: str, other: str) -> None:
    page.goto(f"{other}/page")
    page.evaluate("url => { location = url }", f"{own}/page")
    page.wait_for_url(f"{own}/page")


def test_cookies_are_kept_sent_hidden_from_scripts_and_deleted(page: Page, own: str) -> None:
    page.goto(f"{own}/login")
    assert {cookie["name"]: cookie["sameSite"] for cookie in page.context.cookies()} == {
        "session": "Lax",
        "theme": "Lax",
    }
    page.goto(f"{own}/page")
    assert page.locator("#cookie").text_content() == "theme=dark"
    page.evaluate("document.cookie = 'name=José; path=/'; document.cookie = 'a[b]={\"c\":1}; path=/'")
    sent = page.evaluate("url => fetch(url).then(answer => answer.json())", f"{own}/cookies")
    assert sent == {"session": "s3cret", "theme": "dark", "name": "José", "a[b]": '{"c":1}'}
    page.goto(f"{own}/logout")
    assert {cookie["name"] for cookie in page.context.cookies()} == {"name", "a[b]"}


def test_a_cookie_of_pages_of_other_sites_is_deleted_there_by_a_field_for_those_only(
    page: Page, own: str, other: str
) -> None:
    page.goto(f"{other}/page")
    own = own.replace("127.0.0.1", "localhost")  # another site, and one from which a cookie may be Secure
    request = "url => fetch(url, {mode: 'no-cors', credentials: 'include'}).then(() => null)"
    for what, names in (("login", ["embedded"]), ("logout-lax", ["embedded"]), ("logout", [])):
        page.evaluate(request, f"{own}/embedded/{what}")
        assert [cookie["name"] for cookie in page.context.cookies()] == names


WHY_CLOSED = """([url, subprotocols]) => new Promise(resolve => {
    const ws = new WebSocket(url, subprotocols);
    ws.onclose = ({code, reason, wasClean}) => resolve([ws.protocol, code, reason, wasClean]);
})"""


@pytest.mark.parametrize("offered", [[], ["chat"]])
def test_a_page_reads_why_it_was_refused_if_the_refusal_has_a_close_code(
    page: Page, own: str, other: str, offered: list[str]
) -> None:
    url = f"{own.replace('http://', 'ws://')}/members"
    page.goto(f"{own}/page")
    assert page.evaluate(WHY_CLOSED, [url, offered]) == ["", 1006, "", False]
    protocol = "".join(offered)
    assert page.evaluate(WHY_CLOSED, [f"{url}?close=4401", offered]) == [
        protocol,
        4401,
        "please sign in",
        True,
    ]
    # The origin is checked first: a foreign page must not learn who is signed in.
    page.goto(f"{other}/page")
    assert page.evaluate(WHY_CLOSED, [f"{url}?close=4401", offered]) == ["", 1006, "", False]
