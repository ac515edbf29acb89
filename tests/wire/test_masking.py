from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import repeatable
from wsframework.wire import masking
from wsframework.wire.implementations import installed
from wsframework.wire.masking import Mask

every = pytest.mark.parametrize(
    "mask", [pytest.param(mask, id=name) for name, mask in installed("masking").items()]
)


def by_definition(data: bytes, key: bytes) -> bytes:
    """RFC 6455 §5.3: transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4)."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


@every
def test_masking_is_what_the_rfc_defines(mask: Mask) -> None:
    assert mask(bytes.fromhex("7f9f4d5158"), bytes.fromhex("37fa213d")) == b"Hello"  # §5.7


# Around every length where the pure function changes its ways.
@every
@pytest.mark.parametrize("size", [*range(20), 125, 126, 767, 2046, 2047, 2048, 2049, 2050, 2051, 65_537])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_size_and_type_of_buffer_is_masked(
    mask: Mask, size: int, kind: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    data = bytes(i * 7 & 0xFF for i in range(size))
    masked = mask(kind(data), b"\x00\x01\x80\xff")
    assert type(masked) is bytes
    assert masked == by_definition(data, b"\x00\x01\x80\xff")


@every
def test_a_slice_of_a_view_is_masked_from_its_own_start(mask: Mask) -> None:
    view = memoryview(bytearray(b"..secret.."))[2:8]
    assert mask(mask(view, b"abcd"), b"abcd") == b"secret"


@every
def test_masking_twice_gives_the_data_back(mask: Mask) -> None:
    data = bytes(range(256)) * 20
    assert mask(mask(data, b"\x9a\x00\x17\xff"), b"\x9a\x00\x17\xff") == data


@every
@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
@pytest.mark.parametrize("size", [0, 3, 5000])
def test_a_key_of_another_length_is_refused(mask: Mask, key: bytes, size: int) -> None:
    with pytest.raises(ValueError):
        mask(bytes(size), key)


@repeatable(200)
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 20))
def test_a_payload_masked_in_two_pieces_is_the_same(data: bytes, key: bytes, cut: int) -> None:
    head = masking.pure_apply_mask(data[:cut], key)
    tail = masking.pure_apply_mask(data[cut:], masking.rotate_key(key, len(data[:cut])))
    assert head + tail == by_definition(data, key) == masking.apply_mask(data, key)
