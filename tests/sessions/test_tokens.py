from __future__ import annotations

import hashlib
from typing import Any

import pytest

from wsframework.sessions.tokens import Token, digest_of_user


def test_a_token_is_read_as_it_was_written() -> None:
    token = Token.new()
    assert Token.parse(str(token)) == token
    assert len(str(token)) == 45
    assert len({str(Token.new()) for _ in range(100)}) == 100


def test_a_new_token_of_the_same_session_has_the_same_id_and_another_secret() -> None:
    token = Token.new()
    newer = Token.new(token.id)
    assert newer.id == token.id
    assert newer.secret != token.secret


def test_a_store_gets_a_digest_and_a_log_no_secret() -> None:
    token = Token.new()
    assert token.digest == hashlib.sha256(token.secret.encode()).hexdigest()
    assert token.secret not in repr(token)


@pytest.mark.parametrize(
    "anything",
    [
        None,
        7,
        True,
        b"x" * 45,
        [],
        {"token": "x"},
        "",
        ".",
        "x" * 45,
        "x" * 22 + "." + "x" * 23,
        "x" * 22 + "." + "x" * 22 + "\n",
        "ü" * 22 + "." + "x" * 22,
        "٣" * 22 + "." + "x" * 22,
        "\ud800" * 22 + "." + "x" * 22,
        "." * 100_000,
    ],
)
def test_what_is_no_token_is_none_and_no_error(anything: Any) -> None:
    assert Token.parse(anything) is None


def test_users_are_told_apart_and_none_is_no_user() -> None:
    assert len({digest_of_user(user) for user in (1, 0, "", "Ada", "ada", None, "None", "null")}) == 8
    assert digest_of_user(42) == digest_of_user("42")
    assert "Ada" not in digest_of_user("Ada")


@pytest.mark.parametrize("user", [True, 1.0, b"Ada", ("Ada",), object()])
def test_a_user_is_a_name_or_a_number(user: Any) -> None:
    with pytest.raises(TypeError, match="user is the user's name or number, or None for anonymous sessions"):
        digest_of_user(user)
