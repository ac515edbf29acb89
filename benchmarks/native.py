"""The load loops in C (load.c), where there is a compiler; elsewhere those in load.py take their place."""

from __future__ import annotations

import ctypes
import functools
from array import array

from benchmarks.connections import Connection
from benchmarks.contenders import build
from benchmarks.frames import Failed
from benchmarks.load import Measured, Watch

__all__ = ["READ_BYTES", "available", "echo", "fanout"]

READ_BYTES = 262144  # as in load.c: `expected` must reach that far beyond its period
_LATENCIES = 1_000_000  # kept at most; beyond that every second, fourth …


class _Stream(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_int),
        ("requests", ctypes.c_char_p),
        ("expected", ctypes.c_char_p),
        ("request_bytes", ctypes.c_size_t),
        ("one_request", ctypes.c_size_t),
        ("expected_bytes", ctypes.c_size_t),
        ("frame_bytes", ctypes.c_size_t),
        ("read_bytes", ctypes.c_size_t),
    )


_Callback = ctypes.CFUNCTYPE(None)


class _Job(ctypes.Structure):
    _fields_ = (
        ("connections", ctypes.c_int),
        ("in_flight", ctypes.c_int),
        ("publishers", ctypes.c_int),
        ("warm_up", ctypes.c_double),
        ("seconds", ctypes.c_double),
        ("streams", ctypes.POINTER(_Stream)),
        ("latencies", ctypes.POINTER(ctypes.c_double)),
        ("latency_room", ctypes.c_size_t),
        ("started", _Callback),
        ("stopped", _Callback),
        ("latency_count", ctypes.c_size_t),
        ("messages", ctypes.c_uint64),
        ("pings", ctypes.c_uint64),
        ("elapsed", ctypes.c_double),
        ("cpu", ctypes.c_double),
        ("error", ctypes.c_char * 400),
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(build("load.c", "-shared", "-fPIC", suffix=".so")))
    except (OSError, RuntimeError):
        return None


def available() -> bool:
    return _library() is not None


def _run(
    connections: list[Connection],
    in_flight: int,
    publishers: int,
    warm_up: float,
    seconds: float,
    watch: Watch,
) -> Measured:
    library = _library()
    assert library is not None
    streams = (_Stream * len(connections))()
    for stream, c in zip(streams, connections, strict=True):
        stream.fd, stream.requests, stream.expected = c.fd, c.requests, c.expected
        stream.request_bytes, stream.one_request = c.request_bytes, c.one_request
        stream.expected_bytes, stream.frame_bytes = c.expected_bytes, c.frame_bytes
        stream.read_bytes = min(READ_BYTES, len(c.expected) - c.expected_bytes)
    latencies = (ctypes.c_double * _LATENCIES)()
    started, stopped = _Callback(watch.start), _Callback(watch.stop)
    job = _Job(
        connections=len(connections),
        in_flight=in_flight,
        publishers=publishers,
        warm_up=warm_up,
        seconds=seconds,
        streams=streams,
        latencies=ctypes.cast(latencies, ctypes.POINTER(ctypes.c_double)),
        latency_room=_LATENCIES,
        started=started,
        stopped=stopped,
    )
    if library.run(ctypes.byref(job)):
        raise Failed(job.error.decode("latin-1"))
    kept = array("d", latencies[: job.latency_count])
    return Measured(job.messages, job.elapsed, kept, job.cpu / job.elapsed)


def echo(
    connections: list[Connection], in_flight: int, warm_up: float, seconds: float, watch: Watch
) -> Measured:
    """Do what load.echo and load.echo_large do."""
    return _run(connections, in_flight, 0, warm_up, seconds, watch)


def fanout(
    members: list[Connection], publishers: int, in_flight: int, warm_up: float, seconds: float, watch: Watch
) -> Measured:
    """Do what load.fanout does."""
    return _run(members, in_flight, publishers, warm_up, seconds, watch)
