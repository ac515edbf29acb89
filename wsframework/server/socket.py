"""The transport over a non-blocking socket in the hub; `tls` has the one for TLS."""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from collections.abc import Callable

import trio

from wsframework.config import Limits, Timeouts
from wsframework.server.ending import NoReceiver
from wsframework.server.framing import READ_BYTES, FrameTransport
from wsframework.server.hub import Hub, hang_up, unsent_bytes
from wsframework.server.pollers import HANGUP, QUIET, READ, WRITE
from wsframework.timers import Timers
from wsframework.transport import EncodedMessage
from wsframework.wire import BINARY, Deflater, Inflater, encode_message, frame_header

__all__ = ["NOT_NOW", "SocketTransport"]

LARGE_READ_BYTES = 256 * 1024
"""The same inside a large frame, which then needs a quarter of the calls."""

_JOIN_BYTES = 128 * 1024
"""Up to this size one copy costs less than a system call with many pieces."""

_WHOLE_BYTES = 64 * 1024
"""Payloads above it are not joined with their header."""

_PIECES = 64


# What a non-blocking socket raises instead of waiting.
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def _drop(message: str | bytes) -> None:
    """Do nothing: used before there is a connection, and after it."""


class SocketTransport(FrameTransport):
    """One connection's frames over a socket in the hub."""

    __slots__ = (
        "_asked",
        "_blocked",
        "_deliver",
        "_fd",
        "_hub",
        "_on_release",
        "_read_bytes",
        "_recv",
        "_saw_fin",
        "_saw_hangup",
        "_sent_fin",
        "_socket",
        "_socket_send",
        "_watching",
        "dirty",
        "queued",
    )

    def __init__(
        self,
        socket: stdlib_socket.socket,
        hub: Hub,
        *,
        limits: Limits,
        timeouts: Timeouts,
        timers: Timers,
        codecs: tuple[Deflater, Inflater] | None = None,
        on_release: Callable[[], None],
    ) -> None:
        super().__init__(limits=limits, timeouts=timeouts, timers=timers, codecs=codecs)
        self._socket = socket
        self._hub = hub
        self._fd = socket.fileno()
        self._recv = socket.recv
        self._socket_send = socket.send
        self._read_bytes = READ_BYTES
        self._on_release: Callable[[], None] | None = on_release
        self._deliver: Callable[[str | bytes], None] = _drop
        self._asked = READ
        self.dirty = False
        self.queued = False
        self._blocked = False
        self._saw_fin = False
        self._saw_hangup = False
        self._sent_fin = False
        self._watching = False

    def begin(self, initial: bytes) -> None:
        """Take over the socket after the opening handshake.

        Args:
            initial: bytes that came right behind the handshake.
        """
        self._deliver = self.endpoint.deliver
        self._hub.replace(self._fd, self)
        if self._asked != READ:
            self._ask()
        if initial:
            self._received(initial)

    # In

    def on_ready(self, events: int, now: float) -> None:
        """Read or write what the socket allows."""
        if events & READ:
            self._read(now)
        elif events & HANGUP:
            self._hung_up()
        if events & WRITE:
            # The peer's system took bytes of a full buffer, in which our ping may wait.
            self.heard_at = now
            self._blocked = False
            self._joined = 0
            self._ask()
            self.flush()

    def _read(self, now: float) -> None:
        if self._saw_fin or self._on_release is None:
            return
        try:
            data = self._recv(self._read_bytes)
        except NOT_NOW as error:
            self._not_readable(error)
            return
        except OSError as error:
            self._broken(f"the connection was lost: {error}")
            return
        if not data:
            self._saw_fin = True
            if self._sent_fin:
                self._release()
            else:
                self._ask()  # a FIN stays readable
                self._peer_closed()
            return
        self.heard_at = now
        if self._sending_ended:
            self._came_late(data)
            return
        # `_received`, without the call: this is the path of every message.
        deliver = self._deliver
        delivered = False
        events = self._decoder.feed(data)
        for event in events:
            kind = type(event)
            if kind is str or kind is bytes:
                deliver(event)  # type: ignore[arg-type]
                delivered = True
            else:
                self._control(event, delivered)
        if self._decoder.stopped:
            self._decoder_stopped(delivered)
        elif not events:
            # Exactly to the end of the frame: behind it there may be ten thousand small ones.
            self._read_bytes = max(READ_BYTES, min(self._decoder.unread, LARGE_READ_BYTES))
        elif self._read_bytes != READ_BYTES:
            self._read_bytes = READ_BYTES

    def _decoder_stopped(self, delivered: bool) -> None:
        self._read_bytes = READ_BYTES
        super()._decoder_stopped(delivered)

    def _decode_soon(self) -> None:
        self._hub.again(self)

    def go_on(self, now: float) -> None:
        """Decode more of what was read, and compress what is to be sent."""
        if self._on_release is not None:
            self._compress()
            self._decode_on()

    def _reading_changed(self) -> None:
        self._ask()

    def _read_waiting(self) -> bool:
        if not self._reading_paused and not self._decoder.stopped:
            self._read(trio.current_time())
        return True

    def _untaken_bytes(self) -> int:
        return self.outbox_bytes + unsent_bytes(self._fd)

    def _not_readable(self, error: OSError) -> None:
        """Take note that there was nothing to read; overridden for TLS."""

    def _hung_up(self) -> None:
        """Take note that the peer is gone, or sends no more, while reading is paused."""
        if self._decoder.stopped and not self._reading_paused:
            return  # the end is read when the bytes before it are decoded
        if self._socket_error():
            self._broken("the connection was lost: reset by the peer")
            return
        # FIN, behind bytes that were left in the kernel because the inbox is full. The handler may still
        # receive them; if it neither receives nor sends for a while, the connection is given up.
        self._saw_hangup = True  # epoll would report it in every poll, so do not ask for it again
        self._ask()
        if self._reading_paused:
            self._watch_progress()

    def _watch_progress(self) -> None:
        if self._watching or isinstance(self.endpoint, NoReceiver):
            return  # what waits for a request is bounded by the limits of its answer
        self._watching = True
        stand = (self.endpoint.messages_taken, self.outbox_bytes)
        # The peer's own Close frame may be behind those messages. So a handler gets the time for last words
        # to receive them, even if it gets no grace after the end.
        seconds = max(self._timeouts.disconnect_grace, self._timeouts.last_words)
        self._timers.after(seconds, lambda: self._give_up(stand))

    def _give_up(self, stand: tuple[int, int]) -> None:
        self._watching = False
        if not self._reading_paused or self._on_release is None:
            return
        if (self.endpoint.messages_taken, self.outbox_bytes) != stand:
            self._watch_progress()
            return
        self._lose("the peer closed TCP while the inbox was full")
        self._end_sending()

    def _socket_error(self) -> int:
        return self._socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)

    def pause_reading(self) -> None:
        """Ask the hub for no more bytes."""
        self._reading_paused = True
        self._ask()
        if self._saw_hangup:
            self._watch_progress()

    def resume_reading(self) -> None:
        """Ask the hub for bytes again, once those that were read before are decoded."""
        self._reading_paused = False
        if self._decoder.stopped:
            self._decode_soon()
        self._ask()

    def _ask(self) -> None:
        events = WRITE if self._blocked else 0
        if self._reading_paused:
            events |= 0 if self._saw_hangup else HANGUP
        elif not self._saw_fin and not self._decoder.stopped:
            events |= READ
        self._ask_for(events)

    def _ask_for(self, events: int) -> None:
        events = events or QUIET
        if events != self._asked and self._on_release is not None:
            self._asked = events
            self._hub.ask(self._fd, events)

    # Out

    def send(self, opcode: int, payload: bytes) -> None:
        """Encode and commit one whole message or ping."""
        if self._deflater is not None or opcode > BINARY:
            super().send(opcode, payload)
            return
        if len(payload) > _WHOLE_BYTES:
            # The payload goes out as it is: a copy of a megabyte costs as much as ten small messages.
            header = frame_header(opcode, len(payload))
            if not self.dirty:
                self._hub.mark_dirty(self)
            self.outbox += (header, payload)
            self.outbox_bytes += len(header) + len(payload)
        else:
            # The same as above without three more calls: this is the path of every message.
            frame = encode_message(opcode, payload)
            # Before the frame is in the outbox, as in `_commit`.
            if not self.dirty:
                self._hub.mark_dirty(self)
            self.outbox.append(frame)
            self.outbox_bytes += len(frame)

    def send_encoded(self, message: EncodedMessage) -> None:
        """Commit a message that was encoded once for many connections."""
        if self._deflater is not None:
            super().send_encoded(message)
            return
        frame = message.frame
        if not self.dirty:
            self._hub.mark_dirty(self)
        self.outbox.append(frame)
        self.outbox_bytes += len(frame)

    def _compress_soon(self) -> None:
        self._hub.again(self)

    def _outbox_filled(self) -> None:
        if not self.dirty:
            self._hub.mark_dirty(self)

    def flush(self) -> None:
        """Write the outbox with one system call, as far as the socket takes it."""
        outbox = self.outbox
        if not outbox or self._blocked:
            if outbox:
                self._join_small_frames()
            elif self._sending_ended:
                self._finish_sending()
            return
        if len(outbox) == 1:
            data = outbox[0]
        elif self.outbox_bytes <= _JOIN_BYTES:
            data = b"".join(outbox)
        else:
            self._join_small_frames()
            self._flush_pieces()
            return
        try:
            sent = self._socket_send(data)
        except NOT_NOW:
            sent = 0
        except OSError as error:
            self._broken(f"the connection was lost: {error}")
            return
        self.outbox_bytes -= sent
        if sent == len(data):
            outbox.clear()
        else:
            self.outbox = [memoryview(data)[sent:]]
            self._blocked = True
            self._ask()
        if sent:
            self._sent_some()

    def flush_now(self) -> None:
        """Write the outbox without waiting until the socket is writable."""
        if self._on_release is not None:
            self._compress()
            self._blocked = False
            self.flush()

    def _flush_pieces(self) -> None:
        """Write a large outbox without joining it first."""
        outbox = self.outbox
        try:
            sent = self._socket.sendmsg(outbox[:_PIECES])
        except NOT_NOW:
            sent = 0
        except OSError as error:
            self._broken(f"the connection was lost: {error}")
            return
        self.outbox_bytes -= sent
        left = sent
        whole = 0
        while whole < len(outbox) and left >= len(outbox[whole]):
            left -= len(outbox[whole])
            whole += 1
        del outbox[:whole]
        if left:
            outbox[0] = memoryview(outbox[0])[left:]
        if outbox:
            # The buffer may have room. The next poll tells, and other connections get their turn in between.
            self._blocked = True
            self._ask()
        if sent:
            self._sent_some()

    def _sent_some(self) -> None:
        if self.room_wanted:
            self._made_room()
        if self._sending_ended and not self.outbox:
            self._finish_sending()

    def _finish_sending(self) -> None:
        """Everything is written: hand the socket back if the connection goes on, or send FIN."""
        then = self._then()
        if then is None:
            self._send_fin()
        elif self._on_release is not None:
            self._on_release = None
            self._blocked = True  # no flush may write to a socket that is another's
            self._deliver = _drop
            self._let_go()
            then()

    def _send_fin(self) -> None:
        if self._sent_fin or self._on_release is None:
            return
        self._sent_fin = True
        try:
            self._socket.shutdown(stdlib_socket.SHUT_WR)
        except OSError:
            self._release()
            return
        if self._saw_fin:
            self._release()
            return
        # What the peer still sends is read and dropped, up to its FIN.
        self._reading_paused = False
        self._ask()

    # The end

    def _release(self) -> None:
        on_release, self._on_release = self._on_release, None
        if on_release is None:
            return
        self._blocked = True  # no flush may find the closed socket
        self._hub.remove(self._fd)
        if self._sent_fin:
            self._socket.close()
        else:
            hang_up(self._socket)
        self._released()
        on_release()
        # Break the reference cycles, as `Endpoint.finish` does.
        self._deliver = _drop
