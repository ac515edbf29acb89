"""URLs of Redis servers."""

from __future__ import annotations

import ssl

import pytest

from wsframework import ConfigurationError
from wsframework.engines.redis.address import RedisAddress


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
        ("redis+sentinel://h/m", "Sentinel is not supported yet"),
        ("redis+cluster://h", "Cluster is not supported yet"),
    ],
)
def test_anything_else_is_one_sentence_that_shows_the_forms(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        RedisAddress.parse(url)
    assert "redis://[user:password@]host[:port][/database]" in str(caught.value)


def test_a_context_without_tls_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="ssl is for rediss://"):
        RedisAddress.parse("redis://h", ssl.create_default_context())
