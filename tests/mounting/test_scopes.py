from __future__ import annotations

from wsframework import Address, Request
from wsframework.mounting.scopes import http_scope, websocket_scope

HERE, THERE = Address("10.0.0.1", 80), Address("10.0.0.2", 5000)


def asked(target: str, **more: object) -> Request:
    headers = {"host": "example", "x-café": "é"}
    return Request(target, headers, is_websocket=False, remote=THERE, local=HERE, **more)  # type: ignore[arg-type]


def test_path_root_path_and_query_are_as_asgi_has_them() -> None:
    scope = http_scope(asked("/api/caf%C3%A9%2Fx?a=%20b&c#d", method="POST"), "/api", {"pool": 1}, "1.1")
    assert scope["path"] == "/api/café/x"
    assert scope["root_path"] == "/api"
    assert scope["raw_path"] == b"/api/caf%C3%A9%2Fx"
    assert scope["query_string"] == b"a=%20b&c"
    assert (scope["type"], scope["method"], scope["http_version"]) == ("http", "POST", "1.1")
    assert (scope["scheme"], scope["client"], scope["server"]) == (
        "http",
        ("10.0.0.2", 5000),
        ("10.0.0.1", 80),
    )
    assert scope["headers"] == [(b"host", b"example"), (b"x-caf\xe9", b"\xe9")]
    assert scope["state"] == {"pool": 1}
    assert scope["asgi"]["version"] == "3.0"


def test_each_request_has_a_state_of_its_own_and_none_without_a_lifespan() -> None:
    state = {"a": 1}
    first = http_scope(asked("/"), "", state, "1.1")
    first["state"]["b"] = 2
    assert state == {"a": 1}
    assert "state" not in http_scope(asked("/"), "", None, "1.1")


def test_the_host_that_was_allowed_is_the_one_that_the_application_sees() -> None:
    for request in asked("http://real.example/x"), asked("/x", forwarded_host="real.example"):
        scope = http_scope(request, "", None, "1.1")
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"real.example"]
        assert scope["path"] == "/x"


def test_a_websocket_has_its_subprotocols_and_scheme() -> None:
    request = Request("/x", subprotocols=["a", "b"], secure=True, local=Address("/run/x"), remote=Address(""))
    scope = websocket_scope(request, "", None)
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == ("websocket", "wss", ["a", "b"])
    assert scope["client"] is None
    assert scope["server"] == ("/run/x", None)
    assert "websocket.http.response" in scope["extensions"]


def test_a_proxied_client_without_a_port_is_still_known() -> None:
    request = Request("/", remote=Address("192.0.2.1"), is_websocket=False)
    assert http_scope(request, "", None, "1.1")["client"] == ("192.0.2.1", 0)
