"""Give the system back what a storm of connections has left free in the process.

A handshake that never ends holds some 45 KiB of OpenSSL's, allocated between things that live on. glibc's
`free` gives back only what is free at the top of the heap, so without help a process that once had 5,000 of
them stays large.
"""

from __future__ import annotations

from typing import Any

try:
    import ctypes
except ImportError:  # a Python without libffi
    _ctypes: Any = None
else:
    _ctypes = ctypes

__all__ = ["give_back_memory"]


def _find() -> Any:
    try:
        return _ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # another C library: musl's, macOS's


_malloc_trim = _find()


def give_back_memory() -> None:
    """Return free pages to the system where the C library is glibc; it takes milliseconds."""
    if _malloc_trim is not None:
        _malloc_trim(0)
