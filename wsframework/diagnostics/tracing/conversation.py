"""The frames of one connection, from the 101 to the closing handshake (RFC 6455 §5, §7).

Theory of operation
-------------------
    bytes in -> `FrameSplitter` -> frame steps -> `FrameJudge` -> diagnoses
            \\-> `wire.Decoder` -> what a client must do: answer a ping, answer a Close, fail the connection

One task does everything: it sends the messages, listens for a while, closes, and waits for the answer.
`wire.ClosingHandshake` keeps the state of the closing handshake. It encodes the frames of a server, so only
their contents are used, and masked here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import attrs
import trio

from wsframework.closes import CloseCode, CloseFrame
from wsframework.diagnostics.problems import Problem, broken
from wsframework.diagnostics.reaching import Clock, Tell
from wsframework.diagnostics.target import MAX_MESSAGE_BYTES
from wsframework.diagnostics.tracing.channel import Channel, Ending
from wsframework.diagnostics.tracing.frames import Frame, FrameSplitter, preview
from wsframework.diagnostics.tracing.judging import FrameJudge
from wsframework.diagnostics.tracing.steps import CloseHandshake, FrameStep, MessageStep
from wsframework.wire import (
    CloseReceived,
    CloseState,
    ClosingHandshake,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    close_payload,
    encode_frame,
)

__all__ = ["Conversation", "Script"]

_MAX_FRAMES = 10_000
"""Frames that a trace takes from a server: some 15 MB of steps, and more lines than anybody reads."""


@attrs.frozen
class Script:
    """What a client does on an open connection.

    Attributes:
        messages: texts to send, at once and in this order.
        wait_seconds: how long to listen then.
        timeout_seconds: how long the messages may take, and the answer to our Close frame.
    """

    messages: tuple[str, ...]
    wait_seconds: float
    timeout_seconds: float


class Conversation:
    """One open connection's frames.

    Args:
        channel: sends and receives their bytes.
        codecs: permessage-deflate's two ends, if it was agreed on.
        clock: gives the times of steps.
        tell: is called with each step.
        diagnose: is called with each problem.
    """

    def __init__(
        self,
        channel: Channel,
        codecs: tuple[Deflater | None, Inflater] | None,
        clock: Clock,
        tell: Tell,
        diagnose: Callable[[Problem], None],
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._tell = tell
        self._diagnose = diagnose
        self._deflater = None if codecs is None else codecs[0]
        inflater = None if codecs is None else codecs[1]
        self._decoder = Decoder(masked=False, max_message_bytes=MAX_MESSAGE_BYTES, inflater=inflater)
        self._splitter = FrameSplitter()
        self._judge = FrameJudge(compression=codecs is not None)
        self._closing = ClosingHandshake()
        self._failed = False
        self._stuck = False
        self._frames = 0
        self._diagnosed: set[str] = set()
        self._begun: list[Frame] = []
        self._finished: deque[list[Frame]] = deque()

    async def hold(self, script: Script, rest: bytes) -> Ending | None:
        """Exchange all messages and Close frames; return how the bytes ended, or None if they did not.

        Args:
            script: what to do.
            rest: the bytes that followed the 101.
        """
        ending: Ending | None = None
        with trio.move_on_after(script.timeout_seconds):
            for message in script.messages:
                await self._send_message(message)
            await self._take(rest)
        with trio.move_on_after(script.wait_seconds):
            ending = await self._listen()
        if ending is None and not self._over:
            with trio.move_on_after(script.timeout_seconds) as waiting:
                await self._close(CloseFrame(CloseCode.NORMAL_CLOSURE))
                ending = await self._listen()
            if waiting.cancelled_caught and not self._stuck:
                self._diagnose(
                    Problem(
                        "close.unanswered",
                        f"The server did not answer our Close frame within {script.timeout_seconds:g} s "
                        "(RFC 6455 §5.5.1).",
                    )
                )
        if self._stuck:
            self._diagnose(
                Problem(
                    "tcp.stuck",
                    "The server stopped reading, so a frame could not be sent to its end (RFC 9293 §3.8.6).",
                )
            )
        self._sum_up(ending)
        return ending

    @property
    def clean(self) -> bool:
        """Whether both Close frames crossed."""
        return self._closing.state is CloseState.CLOSED

    @property
    def _over(self) -> bool:
        return self._failed or self.clean

    async def _listen(self) -> Ending | None:
        while not self._over:
            data = await self._channel.receive()
            if isinstance(data, Ending):
                return data
            await self._take(data)
        return None

    # In

    async def _take(self, data: bytes) -> None:
        events = self._decoder.feed(data)
        problems = 0
        for frame in self._splitter.feed(data):
            self._frames += 1
            if self._frames > _MAX_FRAMES:
                await self._stop_reading()
                return
            problems += self._show(frame)
            if frame.opcode < Opcode.CLOSE:
                self._begun.append(frame)
                if frame.fin:
                    self._finished.append(self._begun)
                    self._begun = []
        for event in events:
            await self._act(event, problems)

    async def _stop_reading(self) -> None:
        self._diagnose(
            Problem(
                "frames.too_many",
                f"The server sent more than {_MAX_FRAMES:,} frames; a trace takes no more.",
            )
        )
        await self._close(CloseFrame(CloseCode.POLICY_VIOLATION, "too many frames for a trace"))
        self._failed = True

    def _show(self, frame: Frame) -> int:
        self._tell(self._step("received", frame))
        problems = self._judge.judge(frame)
        for problem in problems:
            if problem.name not in self._diagnosed:  # once: a server may repeat it ten thousand times
                self._diagnosed.add(problem.name)
                self._diagnose(problem)
        return len(problems)

    async def _act(self, event: Event, problems: int) -> None:
        match event:
            case str() | bytes():
                self._show_message(event)
            case Ping(payload):
                if self._closing.state is CloseState.OPEN:
                    await self._send(Opcode.PONG, payload)
            case CloseReceived(frame):
                if self._closing.receive(frame) is not None:
                    await self._send(Opcode.CLOSE, close_payload(frame.code))
            case Failure(code, reason):
                incomplete = self._splitter.take_incomplete()
                if incomplete is not None:
                    problems += self._show(incomplete)
                if not problems:
                    self._diagnose(broken(code, reason))
                await self._close(CloseFrame(code, reason))
                self._failed = True

    def _show_message(self, message: str | bytes) -> None:
        frames = self._finished.popleft()
        compressed = 1 in frames[0].rsv
        if len(frames) == 1 and not compressed:
            return
        data = message.encode() if isinstance(message, str) else message
        kind = "text" if isinstance(message, str) else "binary"
        self._tell_message("received", kind, data, frames=len(frames), compressed=compressed)

    def _tell_message(self, direction: str, kind: str, data: bytes, *, frames: int, compressed: bool) -> None:
        self._tell(
            MessageStep(
                at=self._clock.now(),
                direction=direction,
                kind=kind,
                frames=frames,
                compressed=compressed,
                length=len(data),
                payload=preview(data, len(data)),
            )
        )

    # Out

    async def _send_message(self, message: str) -> None:
        payload = message.encode()
        if self._deflater is not None:
            self._tell_message("sent", "text", payload, frames=1, compressed=True)
            await self._send(Opcode.TEXT, self._deflater.compress(payload), compressed=True)
        else:
            await self._send(Opcode.TEXT, payload)

    async def _close(self, frame: CloseFrame) -> None:
        if self._closing.send(frame) is not None:
            await self._send(Opcode.CLOSE, close_payload(frame.code, frame.reason))

    async def _send(self, opcode: Opcode, payload: bytes, *, compressed: bool = False) -> None:
        # "The masking key [...] MUST be chosen [...] unpredictable" (§5.3)
        key = os.urandom(4)
        data = encode_frame(opcode, payload, rsv1=compressed, masking_key=key)
        # Reported first: on loopback the answer may come before `send` returns.
        (frame,) = FrameSplitter().feed(data)
        self._tell(self._step("sent", frame))
        try:
            await self._channel.send(data)
        except trio.Cancelled:
            # A part of the frame may have been sent, so nothing can follow it.
            self._failed = self._stuck = True
            raise

    # The end

    def _sum_up(self, ending: Ending | None) -> None:
        """Report how the closing handshake went, and what was left incomplete."""
        if ending is not None:
            self._show_unfinished()
        closing = self._closing
        if ending is not None and not self._failed:
            how = "reset" if ending is Ending.RESET else "ended"
            if closing.state is CloseState.OPEN:
                self._diagnose(
                    Problem(
                        "close.none",
                        f"The server {how} the connection without a Close frame; clients see code 1006 "
                        "(RFC 6455 §7.1.5).",
                    )
                )
            elif closing.state is CloseState.CLOSE_SENT:
                self._diagnose(
                    Problem(
                        "close.unanswered",
                        f"The server {how} the connection without answering our Close frame "
                        "(RFC 6455 §5.5.1).",
                    )
                )
        received, sent = closing.received, closing.sent
        self._tell(
            CloseHandshake(
                at=self._clock.now(),
                first={True: "client", False: "server", None: None}[closing.sent_first],
                sent_code=None if sent is None else sent.code,
                received_code=None if received is None else received.code,
                received_reason="" if received is None else received.reason,
                clean=self.clean,
            )
        )

    def _show_unfinished(self) -> None:
        frame = self._splitter.take_incomplete()
        if frame is not None:
            self._show(frame)
            there = frame.length - frame.missing
            self._diagnose(
                Problem(
                    "frame.cut",
                    f"The connection ended inside a frame: {there} of {frame.length} bytes of its payload "
                    "came (RFC 6455 §5.2).",
                )
            )
        elif self._splitter.header_bytes:
            self._diagnose(
                Problem("frame.cut", "The connection ended inside a frame's header (RFC 6455 §5.2).")
            )
        elif self._begun:
            self._diagnose(
                Problem("message.cut", "The connection ended inside a fragmented message (RFC 6455 §5.4).")
            )

    def _step(self, direction: str, frame: Frame) -> FrameStep:
        return FrameStep(
            at=self._clock.now(),
            direction=direction,
            opcode=frame.opcode,
            name=frame.name,
            fin=frame.fin,
            rsv=frame.rsv,
            masked=frame.masked,
            masking_key=frame.masking_key.hex() if frame.masked else None,
            length=frame.length,
            header_bytes=frame.header_bytes,
            complete=not frame.missing,
            payload=preview(frame.payload, frame.length),
            close_code=frame.close_code,
            close_reason=frame.close_reason,
        )
