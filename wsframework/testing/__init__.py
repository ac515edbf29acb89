"""Test an App in memory, on a virtual clock, with a client that is not ours.

    async def test_the_room_greets(autojump_clock):
        async with connect(app, "/rooms/1") as client:
            assert await client.receive() == "Welcome to room 1!"

Tests that are async functions need pytest-trio, and its mode turned on in `pytest.ini`:

    [pytest]
    trio_mode = true

`docs/testing.md` shows the rest: refusals and plain HTTP, clients that stall, vanish or reset, streams that
tear, cancelling a piece of code everywhere it can be cancelled, and judging every frame that was sent.
"""

from wsframework.testing.cancelling import CancelPoint, CancelReport, cancel_everywhere
from wsframework.testing.client import Client, ClientSettings, open_client
from wsframework.testing.deadline import DeadlineExceeded
from wsframework.testing.engines import EngineContract, RecordingSubscriber
from wsframework.testing.faults import (
    Gate,
    HalfOpen,
    NeverReadable,
    NeverWritable,
    ResetAfter,
    StreamWrapper,
    TornReads,
    reset_stream,
)
from wsframework.testing.memory import MemoryStream, memory_pair
from wsframework.testing.recorder import Frame, FrameRecorder, InvalidFrame, Recorded
from wsframework.testing.serving import Answer, MemoryServer, connect, connection_pair, request, serve
from wsframework.testing.session_stores import SessionStoreContract

__all__ = [
    "connect",
    "request",
    "serve",
    "connection_pair",
    "open_client",
    "Client",
    "ClientSettings",
    "Answer",
    "MemoryServer",
    "DeadlineExceeded",
    "cancel_everywhere",
    "CancelReport",
    "CancelPoint",
    "FrameRecorder",
    "Recorded",
    "Frame",
    "InvalidFrame",
    "memory_pair",
    "MemoryStream",
    "Gate",
    "NeverReadable",
    "NeverWritable",
    "TornReads",
    "HalfOpen",
    "ResetAfter",
    "StreamWrapper",
    "reset_stream",
    "EngineContract",
    "RecordingSubscriber",
    "SessionStoreContract",
]
