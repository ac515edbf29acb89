"""Whom a request comes from when proxies have passed it on."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsframework.errors import ConfigurationError
from wsframework.forwarded import Client, Proxies
from wsframework.request import Address

PEER = Address("10.0.0.1", 40000)
CLIENT = Address("203.0.113.9")

FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"


def proxies(*fields: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8", "unix")) -> Proxies:
    return Proxies.parse(trusted, fields or (FOR, PROTO, HOST))


def client_of(*headers: tuple[str, str], secure: bool = False, fields: tuple[str, ...] = ()) -> Client:
    return proxies(*fields).client_of(PEER, headers, secure=secure)


def forwarded(*lines: str, secure: bool = False) -> Client:
    return client_of(*(("forwarded", line) for line in lines), secure=secure, fields=("forwarded",))


# Who is trusted


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("10.0.0.0/8", Address("10.255.0.1", 1), Address("11.0.0.1", 1)),
        ("192.0.2.1", Address("192.0.2.1", 1), Address("192.0.2.2", 1)),
        ("2001:db8::/32", Address("2001:db8:1::1", 1), Address("2001:db9::1", 1)),
        ("::1", Address("::1", 1), Address("127.0.0.1", 1)),
        ("[::1]", Address("::1", 1), Address("", None)),
        ("::ffff:192.0.2.1", Address("192.0.2.1", 1), Address("192.0.2.2", 1)),
        ("::ffff:10.0.0.0/104", Address("10.1.2.3", 1), Address("11.0.0.1", 1)),
        ("10.0.0.0/8", Address("::ffff:10.1.2.3", 1), Address("::10.1.2.3", 1)),
        ("unix", Address("", None), Address("127.0.0.1", 1)),
        ("unix", Address("/run/nginx.sock", None), Address("unix", 1)),
        ("10.0.0.0/8", Address("10.1.2.3", None), Address("./10.1.2.3", None)),
        ("10.0.0.0/8", Address("10.1.2.3", 1), Address("", None)),
    ],
)
def test_a_peer_is_trusted_by_its_address(entry: str, inside: Address, outside: Address) -> None:
    trusted = proxies(trusted=(entry,))
    assert trusted.trusts(inside)
    assert not trusted.trusts(outside)


def test_nobody_is_trusted_unless_named() -> None:
    assert not Proxies.parse(()).any
    assert Proxies.parse(()) == Proxies()
    assert Proxies.parse("unix").any
    assert Proxies.parse("10.0.0.0/8") == Proxies.parse(
        ["10.0.0.0/8"], ["X-Forwarded-For", "X-Forwarded-Proto"]
    )


def test_more_may_be_trusted_and_other_fields_be_read() -> None:
    few = Proxies.parse("10.0.0.0/8", "forwarded")
    assert few.extended([]) == few
    assert few.extended(["unix", "::1"]) == Proxies.parse(["10.0.0.0/8", "::1", "unix"], "forwarded")
    assert few.extended([], [FOR]) == Proxies.parse("10.0.0.0/8", FOR)
    with pytest.raises(ConfigurationError, match="is no network"):
        few.extended(["example.com"])
    assert Proxies().extended(["unix"], [FOR]).any
    with pytest.raises(ConfigurationError, match="no proxy is, so it would not be read"):
        Proxies().extended([], [FOR])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("", "is no network and no address"),
        ("proxy.example", "is no network and no address"),
        ("Unix", "'unix' for"),
        ("10.0.0.1/8", "has bits behind its prefix"),
        ("10.0.0.0/33", "is no network and no address"),
        ("10.0.0.1:80", "is no network and no address"),
        ("*", "is no network and no address"),
        ("0.0.0.0/0", "is everyone"),
        ("::/0", "is everyone"),
        ("::ffff:0:0/96", "is everyone"),
        ("fe80::1%eth0", "has a zone"),
        ("fe80::1%eth0/128", "has a zone"),
        (b"10.0.0.0/8", "is a text"),
        (None, "is a text"),
    ],
)
def test_what_is_no_proxy_is_refused(entry: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Proxies.parse(["10.0.0.0/8", entry])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (["x-real-ip"], "'x-real-ip' is no field"),
        ([], "proxy_fields is empty"),
        (["forwarded", "x-forwarded-for"], "name it alone"),
        ([None], "'none' is no field"),
    ],
)
@pytest.mark.parametrize("trusted", [[], ["unix"]])
def test_fields_that_are_none_or_could_disagree_are_refused(
    fields: list[str], says: str, trusted: list[str]
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Proxies.parse(trusted, fields)


@pytest.mark.parametrize("wrong", [None, 8])
def test_what_is_no_list_is_refused_by_the_name_of_the_argument(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"trusted_proxies is a list of texts, not {wrong}"):
        Proxies.parse(wrong)
    with pytest.raises(ConfigurationError, match=f"proxy_fields is a list of texts, not {wrong}"):
        Proxies.parse(["unix"], wrong)


# X-Forwarded-For


@pytest.mark.parametrize(
    ("lines", "remote"),
    [
        ([], PEER),
        ([""], PEER),
        ([" , ,"], PEER),
        (["203.0.113.9"], CLIENT),
        (["6.6.6.6, 203.0.113.9"], CLIENT),
        (["6.6.6.6,203.0.113.9,"], CLIENT),
        (["6.6.6.6", "203.0.113.9"], CLIENT),
        (["203.0.113.9,10.0.0.2", "10.0.0.3"], CLIENT),
        (["6.6.6.6, 203.0.113.9 ,\t10.0.0.2"], CLIENT),
        (["203.0.113.9:5"], Address("203.0.113.9", 5)),
        (["203.0.113.9:0"], CLIENT),
        (["2001:DB8::0:1"], Address("2001:db8::1")),
        (["[2001:db8::1]"], Address("2001:db8::1")),
        (["[2001:db8::1]:5"], Address("2001:db8::1", 5)),
        (["::ffff:203.0.113.9"], CLIENT),
        (["[::ffff:203.0.113.9]:5"], Address("203.0.113.9", 5)),
        (["fe80::1%eth0"], Address("fe80::1")),
        (["[fe80::1%eth0]"], Address("fe80::1")),
        (["[fe80::1%eth0]:5"], Address("fe80::1", 5)),
        (["203.0.113.9, ::ffff:10.0.0.2, fd00::7"], CLIENT),
        # Between two nginx is a unix socket.
        (["203.0.113.9, unix:"], CLIENT),
        (["6.6.6.6, 203.0.113.9, unix:, 10.0.0.2, unix:"], CLIENT),
        (["6.6.6.6, unix:, 203.0.113.9"], CLIENT),
        (["unix:"], PEER),
        (["unix:/run/nginx.sock"], PEER),
        # All are trusted: a client of our own network.
        (["10.0.0.9, 10.0.0.2"], Address("10.0.0.9")),
        # Whatever is left of what cannot be read may be anyone's invention.
        (["unknown"], PEER),
        (["203.0.113.9, unknown"], PEER),
        (["6.6.6.6, garbage, 10.0.0.2"], Address("10.0.0.2")),
        (["6.6.6.6, _hidden, 10.0.0.2:7"], Address("10.0.0.2", 7)),
        (["203.0.113.9:99999"], PEER),
        (["203.0.113.9:"], PEER),
        (["203.0.113.9:x"], PEER),
        (["203.0.113"], PEER),
        (["[fe80::1%]:5"], PEER),
        (["203.0.113.9%eth0"], PEER),
        (["203.0.113.09"], PEER),
        (["0x7f.1"], PEER),
        (["[203.0.113.9"], PEER),
        (["2001:db8::1]:5"], PEER),
        (["203.0.113.9 10.0.0.2"], PEER),
        (['"203.0.113.9"'], PEER),
        (["٢٠٣.0.113.9"], PEER),
        (["1" * 5000], PEER),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(
    lines: list[str], remote: Address
) -> None:
    assert client_of(*((FOR, line) for line in lines)).remote == remote


def test_a_unix_socket_between_proxies_is_no_trusted_one_unless_it_is_named() -> None:
    found = proxies(FOR, trusted=("10.0.0.0/8",)).client_of(PEER, [(FOR, "203.0.113.9, unix:")], secure=False)
    assert found.remote == PEER


@pytest.mark.parametrize(
    ("lines", "remote", "with_unix"),
    [
        (["6.6.6.6", ""], PEER, Address("6.6.6.6")),
        (["6.6.6.6, "], PEER, Address("6.6.6.6")),
        (["6.6.6.6", "", "10.0.0.2"], Address("10.0.0.2"), Address("6.6.6.6")),
        ([",, 203.0.113.9"], CLIENT, CLIENT),
        ([""], PEER, PEER),
    ],
)
def test_an_empty_element_is_what_haproxy_adds_for_a_peer_on_a_unix_socket(
    lines: list[str], remote: Address, with_unix: Address
) -> None:
    headers = [(FOR, line) for line in lines]
    strict = proxies(FOR, trusted=("10.0.0.0/8",))
    assert strict.client_of(PEER, headers, secure=False).remote == remote
    assert client_of(*headers).remote == with_unix


@pytest.mark.parametrize("secure", [False, True])
def test_an_empty_scheme_or_host_that_a_proxy_adds_is_not_its_clients(secure: bool) -> None:
    forged = "http" if secure else "https"
    for own in ([(PROTO, f"{forged},"), (HOST, "evil.example,")], [(PROTO, ""), (HOST, "")]):
        headers = [(FOR, "203.0.113.9"), (PROTO, forged), (HOST, "evil.example"), *own]
        assert client_of(*headers, secure=secure) == Client(CLIENT, secure, None)


@given(st.text(st.characters(max_codepoint=255)), st.integers(0, 3))
@example("10.0.0.7", 1)
@example("unix:", 1)
def test_no_text_of_a_client_changes_what_is_right_of_it(forged: str, hops: int) -> None:
    behind = "".join(f", 10.0.0.{hop}, unix:" for hop in range(2, 2 + hops))
    assert client_of((FOR, f"{forged}, 203.0.113.9{behind}")).remote == CLIENT
    assert client_of((FOR, forged), (FOR, f"203.0.113.9{behind}")).remote == CLIENT


# X-Forwarded-Proto and X-Forwarded-Host


@pytest.mark.parametrize("field", ["https", "HTTPS", "wss", " https"])
@pytest.mark.parametrize("secure", [False, True])
def test_the_scheme_is_the_clients(field: str, secure: bool) -> None:
    assert client_of((PROTO, field), secure=secure).secure
    assert not client_of((PROTO, "http"), secure=secure).secure


@pytest.mark.parametrize("field", ["", ",", "ftp", "on", "https;q=1", "https http"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_scheme_that_is_none_leaves_the_connections_own(field: str, secure: bool) -> None:
    assert client_of((PROTO, field), secure=secure).secure is secure


@pytest.mark.parametrize(
    ("clients", "schemes", "secure"),
    [
        # One proxy; what is left of its own is the client's.
        ("203.0.113.9", "https, http", False),
        ("203.0.113.9", "http, https", True),
        # Two, which both append.
        ("203.0.113.9, 10.0.0.2", "https, http", True),
        ("203.0.113.9, 10.0.0.2", "http, https, http", True),
        # Two, of which the inner one overwrites, or passes on.
        ("203.0.113.9, 10.0.0.2", "https", True),
        # The outer one hides its client, and says how it came.
        ("unknown, 10.0.0.2", "https, http", True),
        # No address at all.
        ("", "http, https", True),
    ],
)
def test_the_scheme_and_the_host_are_what_the_outermost_trusted_proxy_saw(
    clients: str, schemes: str, secure: bool
) -> None:
    hosts = schemes.replace("https", "secure.example").replace("http", "plain.example")
    found = client_of((FOR, clients), (PROTO, schemes), (HOST, hosts))
    assert found.secure is secure
    assert found.host == ("secure.example" if secure else "plain.example")


def test_a_field_that_is_not_named_is_not_read() -> None:
    headers = [(FOR, "203.0.113.9"), (PROTO, "https"), (HOST, "evil.example"), ("forwarded", "for=6.6.6.6")]
    default = Proxies.parse("10.0.0.0/8")
    assert default.client_of(PEER, headers, secure=False) == Client(CLIENT, True, None)
    for fields, client in [
        ((FOR,), Client(CLIENT, False, None)),
        ((PROTO,), Client(PEER, True, None)),
        ((HOST,), Client(PEER, False, "evil.example")),
        (("forwarded",), Client(Address("6.6.6.6"), False, None)),
    ]:
        assert client_of(*headers, fields=fields) == client


def test_a_host_is_none_if_no_field_has_one() -> None:
    assert client_of((HOST, "")).host is None
    assert client_of((FOR, "203.0.113.9")).host is None


# Forwarded


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], Client(PEER, False)),
        ([""], Client(PEER, False)),
        ([" , ;, ;;"], Client(PEER, False)),
        (["for=203.0.113.9"], Client(CLIENT, False)),
        (["For=203.0.113.9;Proto=HTTPS;by=10.0.0.1;Host=a.example"], Client(CLIENT, True, "a.example")),
        (
            ['for="203.0.113.9:5";host="a.example:8443"'],
            Client(Address("203.0.113.9", 5), False, "a.example:8443"),
        ),
        (["for=203.0.113.9:5 ; proto=https ;"], Client(Address("203.0.113.9", 5), True)),
        (['for="203.0.113.9:_port"'], Client(CLIENT, False)),
        (['for="[2001:db8::1]:4711"'], Client(Address("2001:db8::1", 4711), False)),
        (["for=[2001:db8::1]"], Client(Address("2001:db8::1"), False)),
        ([r'for="203.0\.113.9"'], Client(CLIENT, False)),
        (["for=6.6.6.6, for=203.0.113.9;proto=https"], Client(CLIENT, True)),
        (["for=6.6.6.6;proto=http", "for=203.0.113.9;proto=https"], Client(CLIENT, True)),
        (["for=203.0.113.9;proto=https,for=10.0.0.2;proto=http"], Client(CLIENT, True)),
        (["for=203.0.113.9,for=10.0.0.2;proto=https"], Client(CLIENT, True)),
        (["for=203.0.113.9,,for=10.0.0.2,"], Client(CLIENT, False)),
        (['for=203.0.113.9;ext="a,b;c=d\\",e"'], Client(CLIENT, False)),
        # Hidden, but how it came is said.
        (["for=6.6.6.6, for=unknown;proto=https"], Client(PEER, True)),
        (['for=6.6.6.6, for="_hidden";proto=https;host=a.example'], Client(PEER, True, "a.example")),
        (["proto=https"], Client(PEER, True)),
        (["for=6.6.6.6, proto=https, for=10.0.0.2"], Client(Address("10.0.0.2"), True)),
        # Malformed: nothing of it and nothing left of it counts.
        (["for=6.6.6.6, for=203.0.113.9;proto"], Client(PEER, False)),
        (["for=203.0.113.9;for=6.6.6.6;proto=https"], Client(PEER, False)),
        (['for=203.0.113.9;proto=https;x="'], Client(PEER, False)),
        (["for=203.0.113.9;proto=https, for =10.0.0.2"], Client(PEER, False)),
        (["for=203.0.113.9", 'for="10.0.0.2'], Client(PEER, False)),
    ],
)
def test_forwarded_is_read_as_the_rfc_has_it(lines: list[str], client: Client) -> None:
    assert forwarded(*lines) == client


@given(st.text(st.characters(max_codepoint=255)) | st.text('",;=\\ abfor1.'))
@example('for="')
@example('for="\\')
def test_no_text_of_a_client_changes_what_a_proxy_appends(forged: str) -> None:
    theirs = 'for="[2001:db8::1]:5";host="a.example:80";proto=https'
    client = Client(Address("2001:db8::1", 5), True, "a.example:80")
    assert forwarded(f"{forged}, {theirs}") == client
    assert forwarded(forged, theirs) == client
    assert forwarded(f"{forged}, {theirs}, for=10.0.0.2") == client


@given(
    st.lists(
        st.tuples(st.sampled_from(["forwarded", FOR, PROTO, HOST]), st.text(st.characters(max_codepoint=255)))
    ),
    st.booleans(),
)
def test_nothing_that_a_head_can_hold_raises(headers: list[tuple[str, str]], standard: bool) -> None:
    fields = ("forwarded",) if standard else ()
    found = client_of(*headers, fields=fields)
    assert found.remote == PEER or found.remote.host != PEER.host


@pytest.mark.parametrize(
    "unit",
    [
        *(",", ", ", "a,", 'x=",', 'x="\\",', ',x="";', 'x=",a=";', "a=b;", "10.0.0.2,", "for=10.0.0.2,"),
        *("fd00::1,", "for=unknown,", '"', "\\", "=", ";", " ", "a", "1", ":", "f:", "1.", "[", "%"),
    ],
)
@pytest.mark.parametrize("end", ["", '"', ",for=10.0.0.3", ', for="'])
def test_a_long_field_takes_linear_time(unit: str, end: str) -> None:
    def seconds(size: int) -> float:
        line = (unit * size)[:size] + end
        begun = time.process_time()
        forwarded(line)
        client_of((FOR, line), (PROTO, line), (HOST, line))
        return time.process_time() - begun

    # Sixteen times the text; with a step for each pair of its characters it would take 256 times as long.
    short = max(min(seconds(4_000) for _ in range(3)), 50e-6)
    assert min(seconds(64_000) for _ in range(3)) < 60 * short
