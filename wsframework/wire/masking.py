"""XOR a payload with its four-byte masking key (RFC 6455 §5.3).

"To convert masked data into unmasked data, or vice versa [...] the same algorithm applies regardless of the
direction". Octet i of the result is octet i of the data XOR octet (i modulo 4) of the key.

Measured for 64 B, 1 KiB, 16 KiB and 1 MiB on CPython 3.11: `websockets`' compiled function takes 0.06, 0.10,
0.36 and 20 µs; the pure one below 0.42, 1.9, 14 and 850 µs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from wsframework.wire.implementations import choose

try:
    from websockets.speedups import apply_mask as websockets_apply_mask
except ImportError:  # the extra `speed` is not installed
    websockets_apply_mask = None  # type: ignore[assignment]

__all__ = ["Mask", "apply_mask", "pure_apply_mask", "rotate_key"]

Mask = Callable[[bytes | bytearray | memoryview, bytes], bytes]

# Below this many bytes one XOR of two big integers beats four `bytes.translate` and strided copies: 0.42 µs
# against 0.98 for 64 B, 3.1 both ways at 2 KiB, 21 against 14 at 16 KiB.
_TRANSLATE_FROM_BYTES = 2048


def pure_apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Return `data` masked, or unmasked, with the four-byte `key`, without compiled code.

    Raises:
        ValueError: the key has not four bytes.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    size = len(data)
    if size < _TRANSLATE_FROM_BYTES:
        keystream = (key * (size // 4 + 1))[:size]
        masked = int.from_bytes(data, "little") ^ int.from_bytes(keystream, "little")
        return masked.to_bytes(size, "little")
    # Every fourth octet meets the same octet of the key, so each of the four lanes is one table look-up.
    lanes = bytearray(data)
    for lane in range(4):
        lanes[lane::4] = lanes[lane::4].translate(_xor_table(key[lane]))
    return bytes(lanes)


@cache  # at most 256 tables of 256 bytes
def _xor_table(octet: int) -> bytes:
    return bytes(octet ^ other for other in range(256))


def rotate_key(key: bytes, offset: int) -> bytes:
    """Return the key as it stands `offset` bytes into a payload, for one that arrives in pieces."""
    shift = offset & 3
    return key[shift:] + key[:shift] if shift else key


apply_mask: Mask = choose("masking", {"websockets": websockets_apply_mask, "pure": pure_apply_mask})
