from __future__ import annotations

import inspect
import math
from typing import Any

import attrs
import pytest

from wsframework.config import Deflate, Keepalive, Limits, Timeouts

CONFIGS: list[type[Any]] = [Limits, Timeouts, Keepalive, Deflate]


@pytest.mark.parametrize("config", CONFIGS)
def test_defaults_are_valid_and_frozen(config: type[Any]) -> None:
    value = config()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(config)[0].name, 1)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_is_given_by_name_only(config: type[Any]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        config(1)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_is_explained(config: type[Any]) -> None:
    for field in attrs.fields(config):
        assert f"\n    {field.name}: " in (inspect.getdoc(config) or "")


@pytest.mark.parametrize("config", CONFIGS)
def test_changed_copies_are_checked_too(config: type[Any]) -> None:
    name = {Deflate: "threshold_bytes", Timeouts: "close"}.get(config, attrs.fields(config)[0].name)
    with pytest.raises(ValueError, match=f"{config.__name__}.{name} must be"):
        attrs.evolve(config(), **{name: -1})


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_greater_than_zero(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^Limits\.{name} must be greater than 0, not {value}$"):
        Limits(**{name: value})


def test_counts_may_be_unlimited() -> None:
    limits = Limits(connections=None, connections_per_address=None, message_fragments=None)
    assert limits.connections is limits.connections_per_address is limits.message_fragments is None


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Timeouts)])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, None])
def test_a_wait_of_the_server_has_an_end(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^Timeouts\.{name} must be"):
        Timeouts(**{name: value})


def test_an_endless_wait_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="finite number of seconds, not inf: an unlimited wait would"):
        Timeouts(close=math.inf)


def test_a_wait_may_be_zero() -> None:
    assert Timeouts(disconnect_grace=0).disconnect_grace == 0


def test_keepalive_can_be_turned_off() -> None:
    assert Keepalive(interval=None).interval is None
    with pytest.raises(ValueError, match=r"Keepalive\.interval must be greater than 0, not 0"):
        Keepalive(interval=0)


def deflate(**numbers: Any) -> Deflate:
    return Deflate(**numbers)


@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
def test_a_deflate_window_has_9_to_15_bits_because_zlib_cannot_make_8(name: str) -> None:
    for bits in (9, 15):
        assert getattr(deflate(**{name: bits}), name) == bits
    for bits in (8, 16):
        with pytest.raises(ValueError, match=rf"Deflate\.{name} must be from 9 to 15, not {bits}"):
            deflate(**{name: bits})


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("level", (-1, 0, 9), (-2, 10)), ("memory_level", (1, 9), (0, 10))]
)
def test_zlibs_levels_stay_in_its_range(name: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    for level in good:
        assert getattr(deflate(**{name: level}), name) == level
    for level in bad:
        with pytest.raises(ValueError, match=name):
            deflate(**{name: level})
