"""Host and port as URIs write them, and the hosts that a server answers to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.authority import (
    LOOPBACK_HOSTS,
    AllowedHosts,
    Authority,
    host_list,
    is_host_field,
    is_loopback,
    parse_authority,
)
from wsframework.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("example.com", Authority("example.com")),
        ("Example.COM:8000", Authority("example.com", 8000)),
        ("example.com.", Authority("example.com.")),
        ("example.com:", Authority("example.com")),
        ("a_b", Authority("a_b")),
        ("a!$&'()*+,;=~b", Authority("a!$&'()*+,;=~b")),
        ("a%20b", Authority("a%20b")),
        ("127.0.0.1:80", Authority("127.0.0.1", 80)),
        ("[::1]:0080", Authority("::1", 80)),
        ("[0:0::0001]", Authority("::1")),
        ("[::ffff:192.0.2.1]", Authority("::ffff:c000:201")),
        ("x:65535", Authority("x", 65535)),
    ],
)
def test_a_host_and_its_port_are_read_in_the_form_that_compares(text: str, authority: Authority) -> None:
    assert parse_authority(text) == authority
    assert is_host_field(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x/y",
            "a@x",
            "a:b@x",
            "a b",
            " x",
            "x ",
            "x\t",
            "a\\b",
            "a?b",
            "a#b",
            "<x>",
            'a"b',
            "a|b",
            "a^b",
            "a{b}",
        ),
        *(
            ".",
            ".x",
            "a..b",
            "x..",
            ":80",
            "x:y",
            "x:-1",
            "x:+1",
            "x:1:2",
            "x:65536",
            "x:" + "9" * 5000,
            "x:٨",
        ),
        *(
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[zz]",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "[fe80::1%eth0]",
            "[v1.x]",
        ),
        *("%", "%2", "%zz", "é.example", "a\0b", "a,b c", "http://x"),
    ],
)
def test_what_is_no_host_is_not_taken_for_one(text: str) -> None:
    assert parse_authority(text) is None
    assert not is_host_field(text)


def test_a_host_field_may_be_empty() -> None:
    assert is_host_field("")
    assert parse_authority("") is None


@given(st.text(max_size=30) | st.text("a.:[]%1-", max_size=12))
def test_any_text_is_a_host_or_is_not(text: str) -> None:
    authority = parse_authority(text)
    assert is_host_field(text) == (authority is not None or not text)
    if authority is not None:
        assert authority.host == authority.host.lower()
        assert authority.port is None or 0 <= authority.port <= 65535


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST.", "a.localhost"])
def test_loopback_addresses_and_names_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [None, "", "0.0.0.0", "::", "192.0.2.1", "localhost.example", "example.com"])
def test_everything_else_is_no_loopback(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["chat.example"], "chat.example"),
        (["chat.example"], "CHAT.example:8443"),
        (["chat.example"], "chat.example."),
        (["Chat.Example."], "chat.example"),
        (["bücher.example"], "xn--bcher-kva.example"),
        (["*.chat.example"], "a.chat.example"),
        (["*.chat.example"], "a.b.chat.example:80"),
        (["chat.example:8443"], "chat.example:8443"),
        (["chat.example:443"], "chat.example"),
        (["chat.example:80"], "chat.example"),
        (["192.0.2.7"], "192.0.2.7:8000"),
        (["[::1]"], "[::1]:8000"),
        (["::1"], "[0::1]"),
        (["10.0.0.0/8"], "10.1.2.3:80"),
        (["fd00::/8"], "[fd12::1]"),
        ("chat.example", "chat.example"),
        ("*", "anything"),
        (["chat.example", "*"], ""),
        (LOOPBACK_HOSTS, "localhost"),
        (LOOPBACK_HOSTS, "localhost.:3000"),
        (LOOPBACK_HOSTS, "chat.localhost:3000"),
        (LOOPBACK_HOSTS, "127.0.0.1:3000"),
        (LOOPBACK_HOSTS, "127.9.9.9"),
        (LOOPBACK_HOSTS, "[::1]:3000"),
        (LOOPBACK_HOSTS, "[::ffff:127.0.0.1]"),
    ],
)
def test_a_host_on_the_list_is_allowed(allowed: Any, host: str) -> None:
    assert AllowedHosts.parse(allowed).allow(host, secure=False)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["chat.example"], "evil.example"),
        (["chat.example"], "a.chat.example"),
        (["chat.example"], "chat.example.evil.example"),
        (["chat.example"], "evilchat.example"),
        (["chat.example"], "chat.example@evil.example"),
        (["chat.example"], "chat.example/"),
        (["chat.example"], "chat.example.."),
        (["chat.example"], ""),
        (["*.chat.example"], "chat.example"),
        (["*.chat.example"], ".chat.example"),
        (["*.chat.example"], "evilchat.example"),
        (["chat.example:8443"], "chat.example"),
        (["chat.example:8443"], "chat.example:8444"),
        (["10.0.0.0/8"], "11.0.0.1"),
        (["10.0.0.0/8"], "10.evil.example"),
        (LOOPBACK_HOSTS, "evil.example"),
        (LOOPBACK_HOSTS, "localhost.evil.example"),
        (LOOPBACK_HOSTS, "127.0.0.1.evil.example"),
        (LOOPBACK_HOSTS, "127.evil"),
        (LOOPBACK_HOSTS, "0.0.0.0"),
        (LOOPBACK_HOSTS, "192.168.0.1"),
        (LOOPBACK_HOSTS, "[::2]"),
        (LOOPBACK_HOSTS, "xlocalhost"),
        (LOOPBACK_HOSTS, ""),
    ],
)
def test_no_other_host_is_allowed(allowed: Any, host: str) -> None:
    assert not AllowedHosts.parse(allowed).allow(host, secure=False)


def test_over_tls_a_host_without_a_port_means_443() -> None:
    assert AllowedHosts.parse("chat.example:443").allow("chat.example", secure=True)
    assert not AllowedHosts.parse("chat.example:80").allow("chat.example", secure=True)


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "",
            " ",
            "https://chat.example",
            "chat.example/",
            "chat.example/x",
            "a@b",
            ".chat.example",
            "a.*.b",
        ),
        *("*x", "*.", "*.*.x", "*.x:80", "*.127.0.0.1", "x:y", "x:99999", "[::1", "10.0.0.1/8", "a b"),
        *(None, b"x", 7),
    ],
)
def test_an_entry_that_is_no_host_is_refused_with_what_to_write(entry: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AllowedHosts.parse([entry])
    assert str(caught.value).startswith(f"{entry!r} is no host: write a name such as 'chat.example'")


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no host is allowed"):
        AllowedHosts.parse([])


@pytest.mark.parametrize("hosts", [True, 5, object()])
def test_what_is_no_list_is_refused_with_what_to_write(hosts: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed hosts are a list of texts"):
        host_list(hosts)


def test_what_is_remembered_of_strangers_hosts_is_bounded() -> None:
    hosts = AllowedHosts.parse(["chat.example"])
    for number in range(1000):
        assert not hosts.allow(f"{number}.example", secure=False)
        assert not hosts.allow(f"{number}.example" * 100, secure=False)
        assert hosts.allow("chat.example", secure=False)
    assert len(hosts._known) <= 128
    assert max(len(host) for host, _ in hosts._known) <= 64
