"""SECURITY.md names settings and their defaults: they are there, and none that bounds a peer is left out."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from wsframework import Deflate, Keepalive, Limits, SlowPolicy, Timeouts

PAGE = Path(__file__).parents[2] / "SECURITY.md"
CLASSES = {kind.__name__: kind for kind in (Limits, Timeouts, Keepalive, SlowPolicy, Deflate)}
ROWS = dict(re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE))


def default_of(setting: str) -> object:
    name, _, field = setting.partition(".")
    return getattr(CLASSES[name](), field)


@pytest.mark.parametrize("setting", ROWS)
def test_a_setting_in_the_table_has_the_default_that_stands_there(setting: str) -> None:
    assert ROWS[setting] == str(default_of(setting))


def test_every_limit_and_timeout_stands_in_the_table() -> None:
    settings = {
        f"{kind.__name__}.{field.name}"
        for kind in (Limits, Timeouts, Keepalive)
        for field in attrs.fields(kind)
    }
    assert settings - ROWS.keys() == set()


def test_every_setting_that_the_text_names_exists() -> None:
    for name, field in re.findall(
        r"`(Limits|Timeouts|Keepalive|SlowPolicy|Deflate)\.(\w+)`", PAGE.read_text()
    ):
        assert hasattr(CLASSES[name](), field), f"{name}.{field}"


def test_the_page_is_short_and_every_page_it_links_to_is_there() -> None:
    text = PAGE.read_text()
    assert len(text.splitlines()) < 170
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PAGE.parent / target).exists(), target
