"""URLs of Redis servers."""

from __future__ import annotations

import ssl

import pytest

from wsframework import ConfigurationError
from wsframework.engines.redis.address import RedisAddress, SentinelAddress, parse_address


@pytest.mark.parametrize(
    ("url", "shown", "expected"),
    [
        ("redis://localhost", "redis://localhost:6379/0", {"host": "localhost", "port": 6379}),
        ("redis://[::1]:7000/3", "redis://[::1]:7000/3", {"host": "::1", "port": 7000, "database": 3}),
        ("redis://h/", "redis://h:6379/0", {"database": 0}),
        ("redis://:p%40ss@h", "redis://h:6379/0", {"username": None, "password": "p@ss"}),
        ("redis://ada:%2F%3A@h:1", "redis://h:1/0", {"username": "ada", "password": "/:"}),
        (
            "unix:///run/redis%20x.sock?db=2",
            "unix:///run/redis x.sock",
            {"path": "/run/redis x.sock", "database": 2},
        ),
        ("unix://u:p@/run/r.sock", "unix:///run/r.sock", {"username": "u", "password": "p", "host": None}),
    ],
)
def test_a_url_names_a_server_and_an_account(url: str, shown: str, expected: dict[str, object]) -> None:
    address = RedisAddress.parse(url)
    assert {name: getattr(address, name) for name in expected} == expected
    assert str(address) == shown
    assert address.tls is None


def test_rediss_verifies_the_server_unless_it_is_given_a_context() -> None:
    context = RedisAddress.parse("rediss://h").tls
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    own = ssl.create_default_context()
    assert RedisAddress.parse("rediss://h", own).tls is own


def test_no_message_shows_the_password() -> None:
    address = RedisAddress.parse("redis://ada:secret@h")
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not the URL of a Redis server"),
        ("localhost:6379", "not the URL of a Redis server"),
        ("http://h", "'http': not the URL"),
        ("redis://", "has no host"),
        ("redis://h:x", "not the URL of a Redis server"),
        ("redis://h:99999", "not the URL of a Redis server"),
        ("redis://[::1", "not the URL of a Redis server"),
        ("redis://h/one", "'one' is not the number of a Redis database"),
        ("redis://h/٣", "is not the number of a Redis database"),
        ("unix://run/r.sock", "a unix socket's path is absolute"),
        ("redis+cluster://h", "Cluster is not supported yet"),
        ("redis://a..b", "its host is none"),
        ("redis://\udcff", "its host is none"),
        (f"redis://{'h' * 64}", "its host is none"),
        ("redis://h?db=2", "the URL of the Redis server has more than"),
        ("unix:///r.sock?db=1&ssl=1", "the URL of the Redis server has more than"),
        ("redis://h#x", "the URL of the Redis server has more than"),
    ],
)
def test_anything_else_is_one_sentence_that_shows_the_forms(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        RedisAddress.parse(url)
    assert "redis://[user:password@]host[:port][/database]" in str(caught.value)


@pytest.mark.parametrize("character", "/?#")
@pytest.mark.parametrize(
    "url",
    ["redis://:1{}secret@h/m", "redis+sentinel://:1{}secret@h/m", "rediss://u:secret{}2@h", ":secret{}@h"],
)
def test_a_mistake_in_a_password_does_not_show_it(url: str, character: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(url.format(character))
    assert "secret" not in str(caught.value)


def test_a_context_without_tls_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="ssl is for rediss://"):
        RedisAddress.parse("redis://h", ssl.create_default_context())


@pytest.mark.parametrize(
    ("url", "shown", "expected"),
    [
        ("redis+sentinel://a,b:1/rooms", "redis+sentinel://a:26379,b:1/rooms", {"database": 0}),
        ("redis+sentinel://u:p%40@a/7/3", "redis+sentinel://a:26379/7", {"username": "u", "password": "p@"}),
        (
            "redis+sentinel://[::1],[::2]:7/a%2Fb/3",
            "redis+sentinel://[::1]:26379,[::2]:7/a/b",
            {"database": 3},
        ),
    ],
)
def test_a_url_names_sentinels_a_master_and_an_account_there(
    url: str, shown: str, expected: dict[str, object]
) -> None:
    address = parse_address(url)
    assert isinstance(address, SentinelAddress)
    assert str(address) == shown
    server = address.at("10.0.0.1", 7000)
    assert {name: getattr(server, name) for name in expected} == expected
    assert str(server) == f"redis://10.0.0.1:7000/{server.database}"
    for sentinel in address.sentinels:
        assert (sentinel.username, sentinel.password, sentinel.tls) == (None, None, None)


def test_sentinels_have_an_account_of_their_own_and_the_tls_of_the_server() -> None:
    address = parse_address(
        "rediss+sentinel://ada:first@a,b/m?sentinel_username=bob&sentinel_password=s%26+d"
    )
    assert isinstance(address, SentinelAddress)
    assert address.server.tls is not None
    for sentinel in address.sentinels:
        assert (sentinel.username, sentinel.password) == ("bob", "s&+d")
        assert sentinel.tls is address.server.tls
    assert str(address) == "rediss+sentinel://a:26379,b:26379/m"
    assert "first" not in repr(address)
    assert "s&+d" not in repr(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://h", "names no master"),
        ("redis+sentinel://h/", "names no master"),
        ("redis+sentinel://h#m", "names no master"),
        ("redis+sentinel:///m", "names no sentinel"),
        ("redis+sentinel://a,,b/m", "names no sentinel"),
        ("redis+sentinel://a:x/m", "not the URL of a Redis server"),
        ("redis+sentinel://::1/m", "not the URL of a Redis server"),
        ("redis+sentinel://a/m/one", "'one' is not the number of a Redis database"),
        (
            "redis+sentinel://a/m?sentinel_pasword=x",
            "the parameters sentinel_username and sentinel_password only",
        ),
    ],
)
def test_anything_else_about_sentinels_is_one_sentence(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_address(url)
