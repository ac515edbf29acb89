"""What a client asked for, and what HTTP answer it may get: two frozen values.

`Request` is made by a host from the opening handshake (or a plain HTTP request) and handed to guards, given
functions, HTTP handlers and, as `ws.request`, to WebSocket handlers. `Response` is what a guard or an HTTP
handler returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

import attrs

from wsframework.certificates import Certificate, TLSEnd, read_certificate
from wsframework.cookies import SameSite, parse_cookies, set_cookie_field
from wsframework.errors import Reject
from wsframework.headers import HeaderFields, Headers, check_field
from wsframework.parameters import Parameters
from wsframework.tokens import authority_of, canonical_path, is_status, path_of

__all__ = ["Address", "Body", "Request", "Response", "bound_body", "reason_phrase"]

# Everything that a URL may have, "%" too: what is encoded already stays as it is (RFC 3986 §2).
_URL_CHARS = "%/:?#[]@!$&'()*+,;=-._~"

# Not every codec of Python: some take quadratic time.
_CHARSETS = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "utf-16"}
)

_MOST_FORM_FIELDS = 1000
"""In the body of a form. Each costs about as much work as 100 bytes; Django and PHP allow 1,000 too."""


@attrs.frozen
class Address:
    """One end of a TCP connection; a unix socket has its path as host and no port.

    A relative path begins with `./`, so that none looks like an IP address. A client's address that a trusted
    proxy names without a port has none.
    """

    host: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host or "unix socket"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Body(Protocol):
    """Where the body of a request comes from."""

    async def read(self) -> bytes:
        """Return all of it, as `Request.body` says."""

    def bound(self, max_bytes: int, standstill: float) -> None:
        """Take the limits of the request's route, before anybody reads it."""


def _as_headers(fields: Headers | HeaderFields) -> Headers:
    return fields if isinstance(fields, Headers) else Headers(fields)


def _joined(subprotocols: Iterable[str] | None) -> str | None:
    # A subprotocol is a token, and no token holds a comma (RFC 9110 §5.6.2).
    names = tuple(subprotocols or ())
    return ",".join(names) if names else None


@attrs.frozen(eq=False)
class Request:
    """One HTTP request: an opening handshake, or a plain request on the same port.

    Attributes:
        target: the request target as it was sent: path and query, still percent-encoded.
        headers: all header fields.
        method: the HTTP method; an opening handshake is always a GET (RFC 6455 §4.1).
        is_websocket: True for an opening handshake, False for plain HTTP.
        secure: True when the client's connection is TLS; behind a trusted proxy, as the proxy says.
        remote: the client's address: the peer of the socket, or whom a trusted proxy names, see
            `App(trusted_proxies=…)`. Behind a proxy that is not trusted, the proxy's.
        local: our address.
    """

    target: str
    headers: Headers = attrs.field(factory=Headers, converter=_as_headers)
    # One string, because every open connection keeps its request, and a client may have offered thousands.
    _subprotocols: str | None = attrs.field(default=None, alias="subprotocols", converter=_joined)
    method: str = "GET"
    is_websocket: bool = True
    secure: bool = False
    remote: Address = Address("")
    local: Address = Address("")
    _certificate: Certificate | TLSEnd | None = attrs.field(default=None, alias="peer_certificate")
    _forwarded_host: str | None = attrs.field(default=None, alias="forwarded_host")
    _body: Body | bytes = attrs.field(default=b"", alias="body")

    async def body(self) -> bytes:
        """Return the whole body; empty if the request has none.

        It is read when this is called first, by a guard or by the handler, and kept: further calls return the
        same. A client that waits for `100 Continue` gets it then. A body that nobody reads is not kept.

        Raises:
            Reject: the body is larger than `Limits.body_bytes` (413), it stopped coming for `Timeouts.body`
                (408), or it is malformed or ended too early (400). Let it pass, and the client gets that
                answer.

        Cancellation: nothing is lost; a later call goes on.
        """
        return self._body if isinstance(self._body, bytes) else await self._body.read()

    async def text(self) -> str:
        """Return the body as text, in the `charset` of Content-Type, or UTF-8 without one.

        Raises:
            Reject: as `body` does; also if the charset is unknown (415), or the bytes are not of it (400).

        Cancellation: as for `body`.
        """
        charset = (_parameter(self.headers.get("content-type", ""), "charset") or "utf-8").lower()
        if charset not in _CHARSETS:
            raise Reject(415, "the charset of Content-Type is unknown here: send UTF-8\n")
        try:
            return (await self.body()).decode(charset)
        except UnicodeDecodeError:
            raise Reject(400, f"the body is no text in {charset}\n") from None

    async def json(self) -> Any:
        """Return what the body says in JSON (RFC 8259).

        Content-Type must say so, because a page of another site can send a form or plain text to this server,
        with the user's cookies, but not JSON.

        Raises:
            Reject: as `body` does; also if Content-Type is neither `application/json` nor of the kind
                `application/…+json` (415), or the body is not JSON (400).

        Cancellation: as for `body`.
        """
        kind = _media_type(self.headers.get("content-type", ""))
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise Reject(415, "this takes JSON: send Content-Type: application/json\n")
        try:
            return json.loads(await self.body(), parse_constant=_no_json)
        except RecursionError:
            raise Reject(400, "the body's JSON is nested too deeply\n") from None
        except ValueError:  # `JSONDecodeError` and `UnicodeDecodeError` too
            raise Reject(400, "the body is not JSON (RFC 8259)\n") from None

    async def form(self) -> Parameters:
        """Return the fields of an HTML form that was sent with `method="post"`.

        Forms with files (`multipart/form-data`) are not read.

        Raises:
            Reject: as `body` does; also if Content-Type is not `application/x-www-form-urlencoded` (415),
                there are more than 1,000 fields (413), or the body is not ASCII (400).

        Cancellation: as for `body`.
        """
        if _media_type(self.headers.get("content-type", "")) != "application/x-www-form-urlencoded":
            raise Reject(415, "this takes a form: send Content-Type: application/x-www-form-urlencoded\n")
        try:
            text = (await self.body()).decode("ascii")
        except UnicodeDecodeError:
            raise Reject(400, "the body of a form is percent-encoded, and so ASCII\n") from None
        try:
            return Parameters.parse(text, most=_MOST_FORM_FIELDS)
        except ValueError:
            raise Reject(413, f"the form has more than {_MOST_FORM_FIELDS} fields\n") from None

    @property
    def peer_certificate(self) -> Certificate | None:
        """The client's TLS certificate, if this server ends TLS and its `ssl.SSLContext` asks for one.

        None where `verify_mode` is `ssl.CERT_NONE` (the default), and where it is `ssl.CERT_OPTIONAL` and the
        client has none. Behind a proxy it is the proxy's. It is read from the connection at the first use,
        and kept.

        Raises:
            RuntimeError: this is the first use, and the connection has ended.
        """
        certificate = self._certificate
        if certificate is None or isinstance(certificate, Certificate):
            return certificate
        found = read_certificate(certificate)
        object.__setattr__(self, "_certificate", found)
        return found

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offered in Sec-WebSocket-Protocol, in its order of preference."""
        return () if self._subprotocols is None else tuple(self._subprotocols.split(","))

    @property
    def path(self) -> str:
        """The path without the query, in the form in which routes compare it.

        It is percent-encoded, but only what cannot stand in a path as it is: for `/%61dmin` it is `/admin`.
        `target` is what the client has sent.
        """
        return canonical_path(path_of(self.target))

    @property
    def query(self) -> Parameters:
        """The query's parameters, decoded; of a repeated name the last one counts, `get_all` has them all."""
        # A "#" ends it, as it ends the path: proxies that read the query do so too (RFC 3986 §3.4).
        query = self.target.partition("#")[0].partition("?")[2]
        return Parameters.parse(query)

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the client sent (RFC 6265 §5.4), by name; of a repeated name the first one counts.

        The first one has the most specific path, but which one that is may be another site's choice: any host
        below the same domain can set a cookie of the same name, unless the name begins with `__Host-`. Quotes
        around a value are left out. Values are not decoded further: what `set_cookie` has set reads the same.
        """
        return parse_cookies(self.headers.get_all("cookie"))

    @property
    def origin(self) -> str | None:
        """The Origin field (RFC 6454 §7), or None: browsers always send one, other clients seldom."""
        return self.headers.get("origin")

    @property
    def host(self) -> str:
        """Whom the client wanted: name or address, with the port when it is not the default.

        This is the Host field (RFC 9110 §7.2), or what stands in a target of absolute form: then the server
        "MUST ignore the received Host header field" (RFC 9112 §3.2.2). If a trusted proxy tells what its own
        client wanted, and `App(proxy_fields=…)` names that field, it is that.
        """
        if self._forwarded_host is not None:
            return self._forwarded_host
        authority = authority_of(self.target)
        return self.headers.get("host", "") if authority is None else authority

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} from {self.remote}>"


def bound_body(request: Request, max_bytes: int, standstill: float) -> None:
    """Apply the limits of its route to a request's body.

    Args:
        request: nobody has asked for its body.
        max_bytes: the largest size.
        standstill: how long it may make no progress, in seconds.
    """
    if not isinstance(request._body, bytes):
        request._body.bound(max_bytes, standstill)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip(" \t").lower()


def _parameter(content_type: str, name: str) -> str | None:
    """Return a parameter of Content-Type (RFC 9110 §8.3.1)."""
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip(" \t").lower() == name:
            return value.strip(' \t"')
    return None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")  # Python reads NaN and Infinity, and other languages do not


@attrs.frozen(eq=False, init=False)
class Response:
    """An HTTP answer: from an HTTP handler, or from a guard that refuses.

    Args:
        content_type: the value of Content-Type, unless `headers` has that field.

    Attributes:
        status: the HTTP status.
        headers: header fields. Content-Length, Connection and Date are the server's to set.
        body: the content; `str` given at construction is sent as UTF-8 text.

    Raises:
        ValueError: the status is not a final one, or a field cannot be sent: its name is not a token, or its
            value is not Latin-1 or has a control character.
        TypeError: `headers` is not made of pairs of `str`, or the body is not `str` or bytes.
    """

    body: bytes
    status: int
    headers: Headers

    def __init__(
        self,
        body: str | bytes = b"",
        status: int = 200,
        headers: HeaderFields = (),
        *,
        content_type: str | None = None,
    ) -> None:
        if not is_status(status, lowest=200):
            raise ValueError(f"a Response needs an HTTP status from 200 to 599, not {status!r}")
        if not isinstance(body, str | bytes | bytearray | memoryview):
            # `bytes(404)` is 404 zeros.
            raise TypeError(
                f"a body is str or bytes, not {type(body).__name__}: Response(body, status, headers)"
            )
        fields = Headers(headers)
        for field in fields.pairs():
            check_field(field)
        if content_type is None and body:
            content_type = (
                "text/plain; charset=utf-8" if isinstance(body, str) else "application/octet-stream"
            )
        if content_type is not None and "content-type" not in fields:
            field = "Content-Type", content_type
            check_field(field)
            fields = Headers([*fields.pairs(), field])
        data = body.encode() if isinstance(body, str) else bytes(body)
        # An enum that is an int is written with the name of its class.
        self.__attrs_init__(data, int(status), fields)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: HeaderFields = ()) -> Response:
        """Answer with `value` as JSON."""
        return cls(json.dumps(value, ensure_ascii=False), status, headers, content_type="application/json")

    @classmethod
    def html(cls, page: str, status: int = 200, headers: HeaderFields = ()) -> Response:
        """Answer with an HTML page."""
        return cls(page, status, headers, content_type="text/html; charset=utf-8")

    @classmethod
    def redirect(cls, location: str, status: int = 303, headers: HeaderFields = ()) -> Response:
        """Send the client elsewhere.

        Args:
            location: a URL, or a path on this server; characters that no URL may have are percent-encoded.
            status: 303 (the default): ask there with GET; 307: ask there in the same way; 301 and 308 are the
                same for ever: browsers remember them.
            headers: more header fields.

        Raises:
            ValueError: the status does not redirect, or the location has a control character.

        Source: RFC 9110 §10.2.2, §15.4.
        """
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"a redirect has status 301, 302, 303, 307 or 308, not {status!r}")
        if not location.isprintable():
            raise ValueError(f"the location of a redirect has a control character: {location!r}")
        return cls(b"", status, [*Headers(headers).pairs(), ("Location", quote(location, safe=_URL_CHARS))])

    @classmethod
    def error(cls, status: int, message: str, headers: HeaderFields = ()) -> Response:
        """Answer with a plain-text error that names the status and says what was wrong."""
        return cls(f"{int(status)} {reason_phrase(status)}: {message}\n", status, headers)

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite | None = "lax",
        partitioned: bool = False,
    ) -> Response:
        """Return this answer with one more cookie; the answer itself does not change.

            return Response("Welcome.").set_cookie("__Host-session", key, max_age=3600)

        Arguments and errors are those of `set_cookie_field`. Unless told otherwise, the cookie is sent over
        TLS only, hidden from scripts, and not sent with requests that a page of another site makes.
        """
        field = set_cookie_field(
            name,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            http_only=http_only,
            same_site=same_site,
            partitioned=partitioned,
        )
        return Response(self.body, self.status, [*self.headers.pairs(), field])

    def delete_cookie(
        self,
        name: str,
        *,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        same_site: SameSite | None = "lax",
        partitioned: bool = False,
    ) -> Response:
        """Return this answer with a field that deletes a cookie; the answer itself does not change.

        A browser deletes the cookie that was set with the same name, path, domain and `partitioned`. Over
        plain HTTP it ignores a field with `secure`. In a frame on a page of another site, and in its requests
        to this server, it ignores every field without `same_site="none"`, as when the cookie was set.

        Raises:
            ValueError: as for `set_cookie_field`.
        """
        return self.set_cookie(
            name,
            "",
            max_age=0,
            path=path,
            domain=domain,
            secure=secure,
            same_site=same_site,
            partitioned=partitioned,
        )

    def __repr__(self) -> str:
        return f"<Response {self.status} {len(self.body)} bytes>"


def reason_phrase(status: int) -> str:
    """Return the standard phrase of an HTTP status, or an empty string for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
