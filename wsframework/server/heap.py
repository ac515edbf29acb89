"""Return the memory of a storm of connections to the system.

A TLS handshake that never ends holds about 45 KiB of OpenSSL's memory, between blocks that stay in use.
glibc's `free` returns only the free top of the heap to the system, so a process that once had 5,000 such
handshakes stays large without `malloc_trim`.
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
    """Return free pages to the system if the C library is glibc; this takes milliseconds."""
    if _malloc_trim is not None:
        _malloc_trim(0)
