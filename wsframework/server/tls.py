"""The transport over a TLS socket in the hub.

A `TLSSocket` differs from a plain one in four points, which this module handles: a read may leave bytes
behind that no poll reports; a write that could not be completed must be repeated with the same bytes; each
direction may have to wait for the other; and the connection ends with a close_notify alert before FIN.
"""

from __future__ import annotations

import ssl
from typing import Any

from wsframework.server.hub import Hub
from wsframework.server.pollers import READ, WRITE
from wsframework.server.socket import NOT_NOW, SocketTransport
from wsframework.server.tls_socket import RECORD_BYTES, TLSSocket

__all__ = ["TLSTransport"]

_TLS_PIECES_PER_FLUSH = 8


class TLSTransport(SocketTransport):
    """The same over a `TLSSocket`."""

    __slots__ = ("_incoming", "_offered", "_read_needs_write", "_write_needs_read")

    def __init__(self, socket: TLSSocket, hub: Hub, **settings: Any) -> None:
        super().__init__(socket, hub, **settings)
        self._incoming = socket.incoming
        self._offered = False  # whether `outbox[0]` is being written
        # For TLS's own messages, such as key updates, either direction may have to wait for the other.
        self._read_needs_write = False
        self._write_needs_read = False

    def begin(self, initial: bytes) -> None:
        """Take over the socket after the opening handshake."""
        super().begin(initial)
        self._read_pending()

    def _ask_for(self, events: int) -> None:
        if self._write_needs_read:
            events = events & ~WRITE | READ
        if self._read_needs_write:
            events = events & ~READ | WRITE
        super()._ask_for(events)

    # In

    def on_ready(self, events: int, now: float) -> None:
        """Read or write what the socket allows."""
        if events & WRITE and self._read_needs_write:
            self._read_needs_write = False
            events |= READ
        if events & READ and self._write_needs_read:
            self._write_needs_read = False
            events |= WRITE
        if events & READ and (self._reading_paused or self._decoder.stopped):
            events &= ~READ
        super().on_ready(events, now)

    def _read(self, now: float) -> None:
        super()._read(now)
        if self._incoming.pending:
            self._read_pending()

    def _not_readable(self, error: OSError) -> None:
        if isinstance(error, ssl.SSLWantWriteError):
            self._read_needs_write = True
            self._ask()

    def _read_pending(self) -> None:
        """Read later what has left the kernel already, because no poll reports it."""
        if self._pending():
            self._hub.again(self)

    def _pending(self) -> bool:
        if self._reading_paused or self._decoder.stopped:
            return False
        if self._on_release is None or self._saw_fin or self._sent_fin:
            return False
        assert isinstance(self._socket, TLSSocket)
        return self._socket.pending() > 0

    def go_on(self, now: float) -> None:
        """Decode more of what was read, or read what has left the kernel."""
        super().go_on(now)
        if self._pending():
            self._read(now)

    def resume_reading(self) -> None:
        """Ask the hub for bytes again, and take those that have left the kernel already."""
        super().resume_reading()
        self._read_pending()

    # Out

    def flush(self) -> None:
        """Write the outbox in pieces, as far as the socket takes it.

        After `ssl.SSLWantWriteError` a record has begun, and the next call must offer the same bytes. So each
        call offers the whole first piece of the outbox, and that piece stays as it is until it is taken.
        """
        if self._blocked or not self.outbox:
            super().flush()
            return
        taken = 0
        for _ in range(_TLS_PIECES_PER_FLUSH):
            if not self._offered:
                self._cut_piece()
            piece = self.outbox[0]
            self._offered = True
            try:
                sent = self._socket_send(piece)
            except NOT_NOW as error:
                self._write_needs_read = isinstance(error, ssl.SSLWantReadError)
                break
            except OSError as error:
                self._broken(f"the connection was lost: {error}")
                return
            self._offered = False
            taken += sent
            if sent == len(piece):
                del self.outbox[0]
            else:
                self.outbox[0] = memoryview(piece)[sent:]
            if not self.outbox:
                break
        self.outbox_bytes -= taken
        if self.outbox:
            # The buffer may have room. The next poll tells, and other connections get their turn in between.
            self._blocked = True
            self._joined = 1
            self._ask()
        if taken:
            self._sent_some()

    def _cut_piece(self) -> None:
        """Make the first piece of the outbox as long as one record, if there are enough bytes."""
        outbox, room, whole = self.outbox, RECORD_BYTES, 0
        for piece in outbox:
            if len(piece) > room:
                break
            room -= len(piece)
            whole += 1
        if room and whole < len(outbox):
            cut = memoryview(outbox[whole])
            outbox[whole : whole + 1] = (cut[:room], cut[room:])
            whole += 1
        if whole > 1:
            outbox[:whole] = (b"".join(outbox[:whole]),)

    def _send_fin(self) -> None:
        if self._sent_fin or self._on_release is None:
            return
        assert isinstance(self._socket, TLSSocket)
        try:
            # This sends close_notify and does not wait for the peer's, as RFC 8446 §6.1 allows.
            self._socket.unwrap()
        except ssl.SSLWantWriteError:
            # Without close_notify the peer could not tell this end from a truncation.
            self._blocked = True
            self._ask()
            return
        except (OSError, ValueError):
            pass
        super()._send_fin()
