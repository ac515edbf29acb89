"""Which addresses count as one."""

from __future__ import annotations

import pytest

from wsframework.config import Limits
from wsframework.server.networks import network_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.1", "::FFFF:c000:201"),
        ("192.0.2.1", "64:ff9b::192.0.2.1"),
        ("192.0.2.1", "2002:c000:201::1"),
        ("192.0.2.1", "2002:c000:201:ffff::1"),
        ("192.0.2.1", "2001:0:4136:e378:8000:63bf:3fff:fdfe"),
        ("2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:0db8:0001:0002::1", "2001:db8:1:2::2"),
        ("::1", "::2"),
    ],
)
def test_they_are_one(one: str, other: str) -> None:
    assert network_of(one, Limits()) == network_of(other, Limits())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdfe", "2001:0:4136:e378:8000:63bf:3fff:fdff"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("fe80::1", "fe80::2"),
        ("febf::1", "febf::2"),
        ("client", "another"),
        ("what:ever", "this:is"),
        ("", "192.0.2.1"),
    ],
)
def test_they_are_two(one: str, other: str) -> None:
    assert network_of(one, Limits()) != network_of(other, Limits())


def test_the_number_of_bits_may_be_another() -> None:
    limits = Limits(ipv6_prefix_bits=48, ipv4_prefix_bits=23)
    assert network_of("2001:db8:1:2::1", limits) == network_of("2001:db8:1:3::1", limits)
    assert network_of("2001:db8:2::1", limits) != network_of("2001:db8:1::1", limits)
    assert network_of("192.0.2.1", limits) == network_of("::ffff:192.0.3.255", limits)
    assert network_of("192.0.2.1", limits) != network_of("192.0.4.1", limits)
    assert network_of("no address", limits) == "no address"
    whole = Limits(ipv6_prefix_bits=128)
    assert network_of("2001:db8::1", whole) != network_of("2001:db8::2", whole)


def test_a_number_of_bits_that_no_address_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Limits\.ipv4_prefix_bits must be 32 or less, not 33"):
        Limits(ipv4_prefix_bits=33)
    with pytest.raises(ValueError, match=r"Limits\.ipv6_prefix_bits must be 128 or less, not 129"):
        Limits(ipv6_prefix_bits=129)
