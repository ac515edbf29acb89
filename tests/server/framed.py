"""A transport in frames whose socket is the test, and what a client sends to it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from wsframework.closes import Closed
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.server.framing import FrameTransport
from wsframework.timers import Timers
from wsframework.wire import (
    DeflateParameters,
    Opcode,
    encode_frame,
    server_codecs,
)

KEY = b"\1\2\3\4"
BAD = b"\xff\xff"


def sent(opcode: int, payload: bytes = b"", **options: bool) -> bytes:
    """A frame as a client sends it."""
    return encode_frame(opcode, payload, masking_key=KEY, **options)


def text(message: str) -> bytes:
    return sent(Opcode.TEXT, message.encode())


def close(code: int = 1000) -> bytes:
    return sent(Opcode.CLOSE, code.to_bytes(2))


class Receiver:
    """What a transport delivers to: like a Connection whose handler receives when the test says so."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.pongs: list[bytes] = []
        self.rooms = 0
        self.ended: Closed | None = None
        self.finished: Closed | None = None
        self.on_idle: Callable[[], None] | None = None

    @property
    def has_unread(self) -> bool:
        return bool(self.messages)

    @property
    def messages_taken(self) -> int:
        return 0

    def deliver(self, message: str | bytes) -> None:
        self.messages.append(message)

    def deliver_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        self.on_idle = callback

    def made_room(self) -> None:
        self.rooms += 1

    def end(self, closed: Closed) -> None:
        self.ended = closed

    def finish(self, closed: Closed) -> None:
        self.finished = closed

    def receive_all(self) -> list[str | bytes]:
        """Receive what there is and ask for more, which is what a handler's loop does."""
        messages, self.messages = self.messages, []
        if self.on_idle is not None:
            self.on_idle()
        return messages


class Transport(FrameTransport):
    """Its outbox is taken when the test says so."""

    def __init__(self, timers: Timers, limits: Limits, timeouts: Timeouts, deflate: bool = False) -> None:
        codecs = server_codecs(DeflateParameters(), Deflate(threshold_bytes=0)) if deflate else None
        super().__init__(limits=limits, timeouts=timeouts, timers=timers, codecs=codecs)
        self.receiver = Receiver()
        self.endpoint = self.receiver
        self.released = False
        self.kernel_bytes = 0
        self.steps_wanted = 0
        self.compressions_wanted = 0
        self.waiting = b""
        self.look_takes_a_moment = False

    def _outbox_filled(self) -> None:
        pass

    def _release(self) -> None:
        if not self.released:
            self.released = True
            self._released()

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False

    def _decode_soon(self) -> None:
        self.steps_wanted += 1

    def _compress_soon(self) -> None:
        self.compressions_wanted += 1

    def compress(self) -> None:
        """Compress what was committed, as a subclass does."""
        self._compress()

    def step(self) -> int:
        """Take the steps that are wanted, and return how many those were."""
        steps = 0
        while self.steps_wanted:
            self.steps_wanted -= 1
            steps += 1
            self._decode_on()
        return steps

    def resume(self) -> None:
        """Read on, as a subclass does."""
        self.resume_reading()
        if self._decoder.stopped:
            self._decode_soon()

    def _read_waiting(self) -> bool:
        if self.look_takes_a_moment:
            self.look_takes_a_moment = False
            return False
        waiting, self.waiting = self.waiting, b""
        if waiting:
            self.heard_at = trio.current_time()
            self._received(waiting)
        return True

    def _untaken_bytes(self) -> int:
        return super()._untaken_bytes() + self.kernel_bytes

    @property
    def undecoded(self) -> int:
        return self._decoder.buffered_bytes

    @property
    def reading_paused(self) -> bool:
        return self._reading_paused

    @property
    def sending_ended(self) -> bool:
        return self._sending_ended

    def take(self) -> bytes:
        """Let the pretended socket take the whole outbox."""
        data = b"".join(self.outbox)
        self.outbox.clear()
        self.outbox_bytes = 0
        self._made_room()
        return data

    def receive(self, *frames: bytes) -> None:
        self._received(b"".join(frames))

    def peer_closed(self) -> None:
        self._peer_closed()

    def broken(self) -> None:
        self._broken("the cable was cut")


Make = Callable[..., Transport]


def flood(count: int) -> bytes:
    return b"".join(text(str(number)) for number in range(count))
