from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.chat.names import NAME_CHARS, Names, NameTaken, clean_name, clean_room, clean_text, name_keys


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
        "A\u00adda",
        "\u3164",  # fillers, joiners and blanks alone
        "\u115f\u1160 \u17b4",
        "\u200d\ufe0f",
        "\u2800",
        "\u3164\u0301",
        "Ada\u0640",  # PRECIS forbids it: it only makes words longer
        "\ufdfa" * 32,  # each stands for 18 characters
        "a" + "\u0315\u0300" * 30_000,
        " " * 60_000,
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
    assert set(name_keys(one)) & set(name_keys(other))


LOOK_ALIKES = [
    ("Ada", "Ada\ufe0f"),
    ("Ada", "A\u3164d\u115fa"),
    ("Ada", "Ada\u17b4"),
    ("Ada", "\u2800Ada\u2800"),
    ("Ada", "\u0410da"),  # Cyrillic
    ("ada", "\u0410DA"),
    ("Adam", "Adarn"),
    ("Ida", "lda"),  # capital I, small l
    ("BOB", "B0B"),
    ("paypal", "\u0440\u0430y\u0440\u0430l"),
    ("Ada", "\U0001d400\U0001d41d\U0001d41a"),  # mathematical letters
    ("\u2764\ufe0f Ada", "\u2764 Ada"),
    ("\u1f10", "\u03b5\u0313"),
]
"""Pairs of names that people take for the same."""


@pytest.mark.parametrize(("one", "other"), LOOK_ALIKES)
def test_a_name_that_looks_like_a_held_or_reserved_one_is_taken(one: str, other: str) -> None:
    for held, wanted in ((one, other), (other, one)):
        names: Names[int] = Names()
        names.claim(held, 1)
        with pytest.raises(NameTaken):
            names.claim(wanted, 2)
        assert names.holder(wanted) == 1
        with pytest.raises(NameTaken):
            Names[int](reserved=[held]).claim(wanted, 2)


@pytest.mark.parametrize(
    ("one", "other"), [("Neil", "Nell"), ("Ada", "Adá"), ("Ada", "Ade"), ("\u2764 Ada", "Ada"), ("明", "朋")]
)
def test_names_that_can_be_told_apart_are_different(one: str, other: str) -> None:
    names: Names[int] = Names()
    names.claim(one, 1)
    names.claim(other, 2)
    assert len(names) == 2


@pytest.mark.parametrize(
    "name",
    [
        "\u2764\ufe0f Ada",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family, joined
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # a flag, of tags
        "1\ufe0f\u20e3",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs the non-joiner
    ],
)
def test_emoji_and_joiners_are_shown_as_they_were_typed(name: str) -> None:
    assert clean_name(name) == name


def cleaned_or_none(text: str) -> str | None:
    try:
        return clean_name(text)
    except ValueError:
        return None


IGNORABLE = [
    0xAD,
    0x34F,
    0x61C,
    0x115F,
    0x17B4,
    0x180B,
    0x200D,
    0x202E,
    0x2060,
    0x3164,
    0xFE0F,
    0xFFA0,
    0xE0101,
]


@given(st.text(max_size=NAME_CHARS), st.sampled_from(IGNORABLE), st.integers(0, NAME_CHARS))
def test_invisible_characters_change_no_key(text: str, ignorable: int, at: int) -> None:
    name = cleaned_or_none(text)
    if name is None:
        return
    assert clean_name(name) == name
    assert "" not in name_keys(name)
    assert name_keys(name[:at] + chr(ignorable) + name[at:]) == name_keys(name)


@given(
    st.text(st.sampled_from("AaBbIilL10Oo|\u0410\u0430\u0131\u217c\U0001d41a\u3164\ufe0f \u0301"), max_size=8)
)
def test_a_claim_is_refused_exactly_when_a_key_is_shared(text: str) -> None:
    name = cleaned_or_none(text)
    if name is None:
        return
    for held in ("Ada", "Ill", "B0b", name.swapcase()):
        if cleaned_or_none(held) is None:
            continue
        names: Names[int] = Names()
        names.claim(held, 1)
        if set(name_keys(held)) & set(name_keys(name)):
            with pytest.raises(NameTaken) as taken:
                names.claim(name, 2)
            names.claim(clean_name(taken.value.suggestion), 2)
        else:
            names.claim(name, 2)
        names.release(1)
        names.release(2)
        names.claim(held, 3)


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


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "-x",
        "a b",
        "a/b",
        "x" * 33,
        "a\n",
        "<b>",
        "\ud800",
        "a\u202e",
        "lobby\u3164",
        "a" + "\u0315\u0300" * 30_000,
    ],
)
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
    names.claim("ADA", "first")
    assert names.holder("ada") == "first"
    assert len(names) == 1


def test_a_new_name_frees_the_old_one() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.claim("Grace", "first")
    names.claim("ada", "second")
    assert (names.holder("Ada"), names.holder("Grace")) == ("second", "first")


def test_a_refused_claim_changes_nothing() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.claim("Bob", "second")
    with pytest.raises(NameTaken):
        names.claim("Ada", "second")
    assert names.holder("Bob") == "second"


def test_only_the_holder_can_free_a_name() -> None:
    names: Names[str] = Names()
    names.claim("Ada", "first")
    names.release("second")
    assert names.holder("Ada") == "first"
    names.release("first")
    assert names.holder("Ada") is None


def test_a_suggestion_is_free_and_not_too_long() -> None:
    names: Names[int] = Names(reserved=["Bot 2"])
    long = "x" * NAME_CHARS
    dotted = "l" * 29 + "\u00b7ll"  # PRECIS wants the middle dot between two l
    for number, name in enumerate(["Bot", long, dotted]):
        names.claim(name, number)
    for name in ("Bot", long, dotted):
        with pytest.raises(NameTaken) as taken:
            names.claim(name, 9)
        suggestion = taken.value.suggestion
        assert clean_name(suggestion) == suggestion
        names.claim(suggestion, 9)


def test_a_suggestion_takes_a_few_tries_however_many_were_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    names: Names[int] = Names()
    names.claim("Ada", 0)
    wanted: list[str] = []
    keys = name_keys

    def recorded_keys(name: str) -> tuple[str, ...]:
        wanted.append(name)
        return keys(name)

    monkeypatch.setattr("wsframework.chat.names.name_keys", recorded_keys)
    for holder in range(1, 2000):
        wanted.clear()
        with pytest.raises(NameTaken) as taken:
            names.claim("Ada", holder)
        assert len(wanted) <= 9
        names.claim(taken.value.suggestion, holder)


def test_reserved_names_cannot_be_had() -> None:
    names: Names[int] = Names(reserved=["Clock"])
    with pytest.raises(NameTaken):
        names.claim("CLOCK", 1)
