from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.chat.names import Names, NameTaken, clean_name, clean_room, clean_text, name_key


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("Ada", "Ada"),
        ("  Ada   Lovelace\t", "Ada Lovelace"),
        ("Zoe\u0308", "Zo\u00eb"),  # two characters become the one they mean
        ("Ада", "Ада"),
        ("小明", "小明"),
        ("🦊", "🦊"),
        ("x" * 32, "x" * 32),
    ],
)
def test_a_name_is_shown_composed_and_with_single_spaces(given_name: str, shown: str) -> None:
    assert clean_name(given_name) == shown


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "   ",
        "x" * 33,
        "Ada\x00",
        "Ada\u202egnorw",  # would write the rest of its line from right to left
        "A\u200bda",  # looks like Ada
        "\u2066Ada",
        "\ud800",
        "\ue000",
        "...",
        "\u0301",
    ],
)
def test_a_name_that_could_deceive_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="a name has"):
        clean_name(bad)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "ADA"),
        ("Ada", "\uff21\uff44\uff41"),
        ("straße", "STRASSE"),
        ("ﬁx", "FIX"),
        ("Zo\u00eb", "zoe\u0308"),
    ],
)
def test_names_that_look_the_same_are_the_same(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@given(st.text(max_size=40))
def test_a_clean_name_stays_as_it_is(text: str) -> None:
    try:
        name = clean_name(text)
    except ValueError:
        return
    assert clean_name(name) == name
    assert name_key(name_key(name)) == name_key(name)


@pytest.mark.parametrize(
    ("given_room", "known"),
    [
        ("lobby", "lobby"),
        ("Lobby", "lobby"),
        ("tea-time_2", "tea-time_2"),
        ("Küche", "küche"),
        ("x" * 32, "x" * 32),
    ],
)
def test_a_room_is_known_in_lower_case(given_room: str, known: str) -> None:
    assert clean_room(given_room) == known


@pytest.mark.parametrize("bad", ["", "-x", "a b", "a/b", "x" * 33, "a\n", "<b>", "\ud800", "a\u202e"])
def test_a_room_with_anything_else_in_its_name_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="a room's name has"):
        clean_room(bad)


def test_a_text_keeps_its_lines_and_its_indentation() -> None:
    assert clean_text("  def f():\r\n\tpass  \n\n", 100) == "  def f():\n\tpass"


@pytest.mark.parametrize(
    "bad", ["", " \n\t ", "x" * 11, "a\x00", "a\x1b[31m", "a\x7f", "a\x9b", "\udfff", "a\rb"]
)
def test_a_text_without_content_or_with_controls_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="a text has"):
        clean_text(bad, 10)


def test_a_text_is_measured_in_characters() -> None:
    assert clean_text("🦊" * 10, 10) == "🦊" * 10


def test_a_name_has_one_holder_who_may_change_its_case() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    with pytest.raises(NameTaken, match="the name 'ADA' is taken") as taken:
        names.claim("ADA", "second")
    assert taken.value.suggestion == "ADA 2"
    names.claim("ADA", "first", instead_of="Ada")
    assert names.holder("ada") == "first"
    assert len(names) == 1


def test_a_new_name_frees_the_old_one() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.claim("Grace", "first", instead_of="Ada")
    names.claim("ada", "second")
    assert (names.holder("Ada"), names.holder("Grace")) == ("second", "first")


def test_a_refused_claim_changes_nothing() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.claim("Bob", "second")
    with pytest.raises(NameTaken):
        names.claim("Ada", "second", instead_of="Bob")
    assert names.holder("Bob") == "second"


def test_only_the_holder_can_free_a_name() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.release("Ada", "second")
    assert names.holder("Ada") == "first"
    names.release("ada", "first")
    assert names.holder("Ada") is None


def test_a_suggestion_is_free_and_not_too_long() -> None:
    names: Names[int] = Names(reserved=["Bot 3"])
    for number, name in enumerate(["Bot", "Bot 2", "x" * 32]):
        names.claim(name, number)
    with pytest.raises(NameTaken) as taken:
        names.claim("Bot", 9)
    assert taken.value.suggestion == "Bot 4"
    with pytest.raises(NameTaken) as taken:
        names.claim("x" * 32, 9)
    assert taken.value.suggestion == "x" * 30 + " 2"


def test_reserved_names_cannot_be_had() -> None:
    names: Names[int] = Names(reserved=["Clock"])
    with pytest.raises(NameTaken):
        names.claim("CLOCK", 1)
