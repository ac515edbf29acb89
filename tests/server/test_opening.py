"""From a head to an HTTP answer or an accepted handshake, without any bytes."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter
from types import FrameType
from typing import Any

import attrs
import pytest

import wsframework
from wsframework.closes import CloseFrame
from wsframework.config import Deflate
from wsframework.connection import Connection
from wsframework.forwarded import Client
from wsframework.observer import Observer
from wsframework.request import Address, Request, Response
from wsframework.server.http import Head
from wsframework.server.opening import Circumstances, Opening, consider, crowded_response, draining_response
from wsframework.session import Acceptance, Refusal
from wsframework.wire import DeflateParameters

HERE, THERE = Address("127.0.0.1", 8000), Address("192.0.2.1", 50000)

PLAIN = (("host", "example.com"),)
UPGRADE = (
    *PLAIN,
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
)
OFFERS = (("sec-websocket-protocol", "chat, superchat"), ("sec-websocket-extensions", "permessage-deflate"))


def head(*headers: tuple[str, str], method: str = "GET", version: str = "1.1") -> Head:
    return Head(method, "/room?a=b", version, headers, b"")


async def handler(ws: Connection) -> None:
    pass


class App:
    """Decides as the test says, and remembers what it was asked."""

    def __init__(self, decision: Acceptance | Response) -> None:
        self.decision = decision
        self.requests: list[Request] = []

    async def decide(self, request: Request) -> Acceptance | Response:
        self.requests.append(request)
        return self.decision


async def ask(
    app: App,
    asked: Head,
    *,
    secure: bool = False,
    client: Client | None = None,
    observer: Observer | None = None,
) -> Opening | Response:
    circumstances = Circumstances(secure, THERE, HERE, client=client)
    opening = await consider(asked, circumstances, app.decide, observer or Observer())
    assert isinstance(opening, Opening | Response)
    return opening


class Refusals(Observer):
    """Writes down which handshakes are refused."""

    def __init__(self) -> None:
        self.told: list[tuple[Address, int, str, Request | None]] = []

    def handshake_refused(self, remote: Address, status: int, reason: str, request: Request | None) -> None:
        self.told.append((remote, status, reason, request))


async def test_a_refusal_by_a_close_opens_the_websocket_and_is_told_as_a_refusal() -> None:
    refusal = attrs.evolve(Refusal.by(401, CloseFrame(4401, "who are you?")), subprotocol="chat")
    app = App(refusal)
    refusals = Refusals()
    opening = await ask(app, head(*UPGRADE, *OFFERS), observer=refusals)
    assert isinstance(opening, Opening)
    assert opening.acceptance is refusal
    assert opening.answer.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in opening.answer
    assert refusals.told == [(THERE, 401, "Close 4401 (who are you?)", app.requests[0])]


async def test_the_application_sees_the_whole_request() -> None:
    app = App(Response("page"))
    answer = await ask(app, head(*UPGRADE, *OFFERS), secure=True)
    assert answer is app.decision
    (request,) = app.requests
    assert (request.target, request.method, request.host) == ("/room?a=b", "GET", "example.com")
    assert request.subprotocols == ("chat", "superchat")
    assert (request.remote, request.local, request.secure) == (THERE, HERE, True)
    assert request.is_websocket


async def test_what_a_trusted_proxy_says_of_its_client_goes_before_what_the_connection_is() -> None:
    app = App(Response("page"))
    for client, host in [
        (Client(THERE, True, "b.example:8443"), "b.example:8443"),
        (Client(THERE, True), "example.com"),
    ]:
        await ask(app, head(*PLAIN), client=client)
        assert (app.requests[-1].secure, app.requests[-1].host) == (True, host)
        assert app.requests[-1].headers["host"] == "example.com"
    answer = await ask(app, head(*PLAIN), client=Client(THERE, True, "a@b"))
    assert isinstance(answer, Response)
    assert (answer.status, len(app.requests)) == (400, 2)


async def test_a_plain_request_is_no_websocket() -> None:
    app = App(Response("page"))
    await ask(app, head(*PLAIN))
    (request,) = app.requests
    assert not request.is_websocket
    assert not request.secure
    assert request.subprotocols == ()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (head(*UPGRADE, method="POST"), 405),
        (head(*UPGRADE, version="1.0"), 426),
        (head(*UPGRADE[:-1], ("sec-websocket-version", "8")), 426),
        (head(*UPGRADE[:-2], ("sec-websocket-key", "short"), UPGRADE[-1]), 400),
        (head(*UPGRADE, ("sec-websocket-protocol", "not a token")), 400),
    ],
)
async def test_a_wrong_handshake_is_answered_without_asking_the_application(asked: Head, status: int) -> None:
    app = App(Acceptance(handler))
    refusals = Refusals()
    answer = await ask(app, asked, observer=refusals)
    assert isinstance(answer, Response)
    assert answer.status == status
    assert app.requests == []
    assert [(remote, told, request) for remote, told, _, request in refusals.told] == [(THERE, status, None)]


@pytest.mark.parametrize("host", ["x/y", "a@x", "a b", "a..b", "x:y", "x:65536", "[::1", "::1", "é", "a?b"])
@pytest.mark.parametrize("rest", [(), UPGRADE[1:]])
async def test_a_host_that_is_none_is_400(host: str, rest: tuple[tuple[str, str], ...]) -> None:
    app, refusals = App(Response("page")), Refusals()
    answer = await ask(app, head(("host", host), *rest), observer=refusals)
    assert isinstance(answer, Response)
    assert (answer.status, app.requests) == (400, [])
    assert [status for _, status, _, _ in refusals.told] == [400] * bool(rest)


@pytest.mark.parametrize("authority", ["user@example.com", "<script>", "example.com:99999", "[::1", "a\\b"])
@pytest.mark.parametrize("rest", [(), UPGRADE[1:]])
async def test_a_target_whose_host_is_none_is_400(authority: str, rest: tuple[tuple[str, str], ...]) -> None:
    app, refusals = App(Response()), Refusals()
    asked = attrs.evolve(head(*PLAIN, *rest), target=f"http://{authority}/room")
    answer = await ask(app, asked, observer=refusals)
    assert isinstance(answer, Response)
    assert (answer.status, app.requests) == (400, [])
    assert [status for _, status, _, _ in refusals.told] == [400] * bool(rest)
    for target in ("http://example.org:81/room", "http://[::1]?a", "*"):
        await ask(app, attrs.evolve(asked, target=target))
    assert [request.host for request in app.requests] == ["example.org:81", "[::1]", "example.com"]


@pytest.mark.parametrize("fields", [(("host", ""),), (("host", "a_b.example:1"),), ()])
async def test_an_empty_host_and_an_old_request_without_one_are_asked_about(
    fields: tuple[tuple[str, str], ...],
) -> None:
    app = App(Response("page"))
    assert await ask(app, head(*fields, version="1.0")) is app.decision


async def test_an_accepted_request_keeps_its_fields_in_one_string() -> None:
    opening = await ask(App(Acceptance(handler)), head(*UPGRADE, *OFFERS))
    assert isinstance(opening, Opening)
    assert opening.request.headers.pairs() == (*UPGRADE, *OFFERS)
    assert isinstance(opening.request.headers._fields, str)


async def test_an_accepted_handshake_has_its_101_with_subprotocol_and_extra_fields() -> None:
    acceptance = Acceptance(handler, subprotocol="chat", headers=(("X-Extra", "yes"),))
    opening = await ask(App(acceptance), head(*UPGRADE, *OFFERS))
    assert isinstance(opening, Opening)
    assert opening.acceptance is acceptance
    assert opening.codecs is None
    lines = opening.answer.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert "Sec-WebSocket-Protocol: chat" in lines
    assert "X-Extra: yes" in lines
    assert not any(line.startswith("Sec-WebSocket-Extensions") for line in lines)


async def test_a_handshake_that_cannot_be_accepted_by_the_programs_mistake_is_told_as_refused() -> None:
    app, refusals = App(Acceptance(handler, headers=(("X-Name", "\u20ac"),))), Refusals()
    with pytest.raises(ValueError, match="X-Name"):
        await ask(app, head(*UPGRADE), observer=refusals)
    assert refusals.told == [(THERE, 500, "", app.requests[0])]


async def test_compression_is_agreed_on_when_both_want_it() -> None:
    opening = await ask(App(Acceptance(handler, compression=Deflate())), head(*UPGRADE, *OFFERS))
    assert isinstance(opening, Opening)
    assert opening.codecs is not None
    assert opening.compression == DeflateParameters(server_max_window_bits=12)
    assert b"Sec-WebSocket-Extensions: permessage-deflate" in opening.answer


@pytest.mark.parametrize("extensions", [None, "x-webkit-deflate-frame", "permessage-deflate; unknown=1"])
async def test_compression_is_left_out_when_the_client_offers_none_that_we_know(
    extensions: str | None,
) -> None:
    offer = () if extensions is None else (("sec-websocket-extensions", extensions),)
    opening = await ask(App(Acceptance(handler, compression=Deflate())), head(*UPGRADE, *offer))
    assert isinstance(opening, Opening)
    assert opening.codecs is None
    assert opening.compression is None
    assert b"Extensions" not in opening.answer


async def test_an_application_that_accepts_a_plain_request_has_made_a_mistake() -> None:
    with pytest.raises(TypeError, match="no opening handshake"):
        await ask(App(Acceptance(handler)), head(*PLAIN))


def test_a_busy_and_a_stopping_server_say_when_to_come_back() -> None:
    for response in (crowded_response(), draining_response()):
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0


def calls_of_a_handshake(app: wsframework.App) -> Counter[str]:
    """Return the Python functions that run from a head to an accepted handshake."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("wsframework."):
            calls[f"{module}.{frame.f_code.co_name}"] += 1

    considered = consider(head(*UPGRADE), Circumstances(False, THERE, HERE), app.decide, Observer())
    sys.setprofile(count)
    try:
        with pytest.raises(StopIteration) as end:
            considered.send(None)
    finally:
        sys.setprofile(None)
    assert isinstance(end.value.value, Opening)  # it has waited for nothing
    return calls


def test_a_route_without_guards_and_given_functions_calls_nothing_that_those_need() -> None:
    async def find_user(request: Request) -> str:
        return "Ada"

    async def talk(ws: Connection, user: str) -> None: ...

    async def page(request: Request, user: str) -> str:
        return user

    alone, among_others = wsframework.App(), wsframework.App()
    for app in (alone, among_others):
        app.websocket("/room")(handler)
    among_others.websocket("/club", given={"user": find_user})(talk)
    among_others.http("/room", given={"user": find_user}, guarded=False)(page)
    calls = calls_of_a_handshake(alone)
    assert calls == calls_of_a_handshake(among_others)
    modules = {name.rpartition(".")[0] for name in calls}
    assert "wsframework.deciding" in modules
    # No cancel scope, no given function, no cookie, and nothing about proxies.
    assert modules.isdisjoint(
        f"wsframework.{name}" for name in ("tasks", "calling", "cookies", "forwarded", "errors")
    )


class Crash(Exception):
    pass


@pytest.mark.parametrize("kind", ["guard", "given", "page"])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_a_crash_holds_is_free_without_a_collection(kind: str, grouped: bool) -> None:
    held: list[weakref.ref[object]] = []

    async def crash(request: Request) -> Any:
        error = Crash()
        held.append(weakref.ref(error))
        held.append(weakref.ref(request))
        try:
            raise ExceptionGroup("of its nursery", [error]) if grouped else error
        finally:
            del error

    async def page(request: Request, user: str = "") -> str:
        return user

    app = wsframework.App()
    guards, given = [crash] if kind == "guard" else [], {"user": crash} if kind == "given" else {}
    app.http("/room", guards=guards, given=given)(crash if kind == "page" else page)
    gc.disable()
    try:
        answer = await consider(head(*PLAIN), Circumstances(False, THERE, HERE), app.decide, Observer())
        assert isinstance(answer, Response)
        assert answer.status == 500
        assert [reference() for reference in held] == [None, None]
    finally:
        gc.enable()
