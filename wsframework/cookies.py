"""Cookies: what a client sent, and the Set-Cookie field of an answer (RFC 6265).

Not the standard library's `http.cookies`: its parser drops all cookies if there is one pair that it does not
understand, so one odd cookie, which any page of the site can set, logs a user out. Its writer turns values
into escapes that only it reads, and takes attributes unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from wsframework.tokens import is_token

__all__ = ["SameSite", "parse_cookies", "set_cookie_field"]

SameSite = Literal["lax", "strict", "none"]
"""With which requests from other sites a browser sends a cookie: when the user follows a link (lax), with
none (strict), or with all ("none")."""

_MOST_CHARS = 4096
"""Of name and value together; browsers ignore a cookie with more (draft-ietf-httpbis-rfc6265bis)."""

_MOST_ATTRIBUTE_CHARS = (
    1024  # a longer Path or Domain is ignored, and the cookie has another one (the same draft)
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR = 1601  # browsers pass over an earlier date: the cookie stays for the session (RFC 6265 §5.1.1)

_NO_COOKIE_OCTET = re.compile(r"[^!#-+\--:<-\[\]-~]")
_QUOTED = re.compile(r'"([^"]*)"')
_PATH = re.compile(r"/(?:[ -:<-~]*[!-:<-~])?")  # no space at its end: browsers leave that out
_TYPES: dict[str, tuple[type, str]] = {
    "max_age": (int, "an int, in seconds"),
    "expires": (datetime, "a datetime"),
    "path": (str, "a str"),
    "domain": (str, "a str"),
}
_DOMAIN = re.compile(r"[0-9A-Za-z_\-]++(?:\.[0-9A-Za-z_\-]++)*+")


def parse_cookies(fields: Iterable[str]) -> dict[str, str]:
    """Read the values of Cookie fields. What is no cookie is passed over; nothing is raised.

    Of a repeated name the first one counts: a browser sends cookies with longer, more specific paths first
    (RFC 6265 §5.4). One pair of quotes around a value is taken off (§4.1.1); nothing else is decoded, except
    that bytes outside ASCII, which scripts can set, are read as UTF-8.
    """
    cookies: dict[str, str] = {}
    for field in fields:
        for pair in field.split(";"):
            name, mark, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if not mark or not name or name in cookies:
                continue
            quoted = _QUOTED.fullmatch(value)
            cookies[name] = _decoded(value if quoted is None else quoted[1])
    return cookies


def _decoded(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def set_cookie_field(
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
) -> tuple[str, str]:
    """Make the header field that sets a cookie, for the `headers` of an answer.

    Args:
        name: a token: letters, digits and ``!#$%&'*+-.^_`|~``. A browser accepts `__Secure-…` only with
            `secure`, and `__Host-…` only with `secure`, `path="/"` and no `domain`, so that no other host can
            have set it. `__Http-…` and `__Host-Http-…` need `http_only` besides.
        value: visible ASCII without `"`, `,`, `;` and `\\`. Encode anything else, with `urllib.parse.quote`
            for example.
        max_age: seconds for which the browser keeps it; 0 deletes it. With neither `max_age` nor `expires` it
            ends with the browser's session.
        expires: a time, with its time zone, until which the browser keeps it; `max_age` has precedence.
        path: where it is sent: with requests for this path and those below it.
        domain: a domain to send it to, with all hosts below it; None for this host alone.
        secure: send it over TLS only. Over plain HTTP browsers accept such a cookie from `localhost` at most.
        http_only: hide it from the page's scripts.
        same_site: with which requests from other sites it is sent, or None to leave that to the browser.
            `"none"` needs `secure`.
        partitioned: keep it apart for each site that embeds this one (CHIPS); needs `secure`, and in a frame
            on a page of another site `same_site="none"` too.

    Returns:
        `("Set-Cookie", …)`.

    Raises:
        ValueError: a part cannot stand in the field, or a browser would ignore the cookie. The value, which
            may be a secret, is not repeated.
        TypeError: an argument is of another type.

    Source: RFC 6265 §4.1.
    """
    _check_pair(name, value)
    _check_types(name, max_age=max_age, expires=expires, path=path, domain=domain)
    if max_age is not None and max_age < 0:
        raise _wrong(name, f"max_age is a number of seconds, or 0 to delete it, not {max_age}")
    if max_age == 0:
        # "max-age-av" begins with a digit that is not zero. RFC 6265 §3.1 deletes a cookie like this.
        max_age, expires = None, _EPOCH
    # Joined, not formatted: an enum that is a str, or an int, is formatted with the name of its class.
    parts = ["=".join((name, value))]
    if expires is not None:
        parts.append(f"Expires={_date(name, expires)}")
    if max_age is not None:
        parts.append(f"Max-Age={int(max_age)}")
    if domain is not None:
        if not _DOMAIN.fullmatch(domain):
            raise _wrong(name, f"{domain!r} is no domain: ASCII, with no scheme, port or dot at its start")
        parts.append("Domain=" + domain)
    if not _PATH.fullmatch(path):
        raise _wrong(
            name, f'{path!r} is no path: it begins with "/" and is ASCII without ";" or a space at its end'
        )
    parts.append("Path=" + path)
    for what, attribute in (("domain", domain), ("path", path)):
        if attribute is not None and len(attribute) > _MOST_ATTRIBUTE_CHARS:
            raise _wrong(name, f"browsers ignore a {what} of more than {_MOST_ATTRIBUTE_CHARS} bytes")
    _check_security(name, path, domain, secure, http_only, same_site, partitioned)
    if secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    if same_site is not None:
        parts.append(f"SameSite={same_site.capitalize()}")
    if partitioned:
        parts.append("Partitioned")
    return "Set-Cookie", "; ".join(parts)


def _check_pair(name: str, value: str) -> None:
    parts: tuple[object, object] = (name, value)
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(
            f"a cookie's name and value are str, not {type(name).__name__} and {type(value).__name__}"
        )
    if not is_token(name):
        raise ValueError(f"{name!r} cannot be a cookie's name: it is a token such as 'session'")
    wrong = _NO_COOKIE_OCTET.search(value)
    if wrong is not None:
        raise _wrong(
            name,
            f"its value cannot hold {wrong[0]!r}, at character {wrong.start() + 1}: encode it, for example "
            "with urllib.parse.quote",
        )
    if len(name) + len(value) > _MOST_CHARS:
        raise _wrong(name, f"browsers ignore a name and value of more than {_MOST_CHARS} bytes")


def _check_types(name: str, **values: object) -> None:
    for argument, value in values.items():
        kind, what = _TYPES[argument]
        optional = value is None and argument != "path"
        if not optional and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TypeError(f"cookie {name!r}: {argument} is {what}, not {type(value).__name__}")


def _check_security(
    name: str,
    path: str,
    domain: str | None,
    secure: bool,
    http_only: bool,
    same_site: SameSite | None,
    partitioned: bool,
) -> None:
    """Refuse what a browser would ignore without a word."""
    if same_site not in ("lax", "strict", "none", None):
        raise _wrong(name, f'same_site is "lax", "strict", "none" or None, not {same_site!r}')
    # Browsers compare the prefixes without regard to case (draft-ietf-httpbis-rfc6265bis).
    prefix = name.lower()
    of_this_host, of_no_script = prefix.startswith("__host-"), prefix.startswith(("__http-", "__host-http-"))
    needs_secure = {
        "its prefix": of_this_host or of_no_script or prefix.startswith("__secure-"),
        'same_site="none"': same_site == "none",
        "partitioned": partitioned,
    }
    for what, needed in needs_secure.items():
        if needed and not secure:
            raise _wrong(name, f"{what} needs secure=True")
    if of_no_script and not http_only:
        raise _wrong(name, "its prefix needs http_only=True")
    if of_this_host and (path != "/" or domain is not None):
        raise _wrong(name, 'its prefix needs path="/" and no domain')


def _date(name: str, expires: datetime) -> str:
    if expires.tzinfo is None:
        raise _wrong(name, "expires needs a time zone, such as datetime.now(UTC) + timedelta(days=30)")
    try:
        moment = expires.astimezone(UTC)
    except OverflowError:  # datetime.max, for example, in another time zone
        moment = expires.replace(tzinfo=UTC)
    if moment.year < _FIRST_YEAR:
        raise _wrong(name, f"browsers pass over an expires before {_FIRST_YEAR}; use max_age=0 to delete it")
    return format_datetime(moment, usegmt=True)


def _wrong(name: str, what: str) -> ValueError:
    return ValueError(f"cookie {name!r}: {what}")
