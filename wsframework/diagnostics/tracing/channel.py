"""A connected socket's bytes, in plain text or through TLS, and how they end.

TLS runs on two memory buffers, so that close_notify, FIN and RST can be told apart.
"""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
import ssl
from enum import StrEnum

import trio

__all__ = ["Channel", "Ending"]

_READ_BYTES = 64 * 1024


class Ending(StrEnum):
    """How the peer's bytes ended."""

    CLOSE_NOTIFY = "close_notify"
    FIN = "fin"
    RESET = "reset"


class Channel:
    """Both directions of one TCP connection.

    Attributes:
        socket: connected and non-blocking; the caller closes it.
        tls: the TLS connection, once `start_tls` was called.
    """

    def __init__(self, socket: stdlib_socket.socket) -> None:
        self.socket = socket
        self.tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._reset = False
        self._received_all = False

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> ssl.SSLObject:
        """Do the TLS handshake.

        Raises:
            ssl.SSLError: it failed.
            ConnectionError: TCP ended in the middle of it.
        """
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if isinstance(ended := await self._fill(), Ending):
                    how = "RST" if ended is Ending.RESET else "FIN"
                    raise ConnectionError(f"the server ended TCP ({how}) in the middle of it") from None
            except ssl.SSLError:
                # Send the alert, which gives the reason for the server's log.
                await self._flush()
                raise
        await self._flush()
        self.tls = tls
        return tls

    async def send(self, data: bytes) -> None:
        """Send bytes; when the connection is lost, the next `receive` returns `Ending.RESET`."""
        if self.tls is None:
            await self._send_raw(data)
            return
        with contextlib.suppress(ssl.SSLError):  # TLS has ended; the next `receive` returns how
            self.tls.write(data)
        await self._flush()

    async def receive(self) -> bytes | Ending:
        """Wait for at least one byte, or for the end of the bytes; a FIN may follow after CLOSE_NOTIFY.

        Cancellation: no byte is lost.
        """
        while True:
            if self.tls is None or self._received_all:
                return await self._receive_raw()
            try:
                data = self.tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                ended = await self._fill()
                if ended is not None:
                    return ended
            except ssl.SSLError:
                # A record that cannot be decrypted ends the connection (RFC 8446 §5.2).
                self.tls = None
                return Ending.RESET
            else:
                if data:
                    return data
                self._received_all = True
                return Ending.CLOSE_NOTIFY

    async def close_tls(self) -> bool:
        """Send close_notify if the connection uses TLS; return whether it does."""
        tls = self.tls
        if tls is None:
            return False
        with contextlib.suppress(ssl.SSLError):  # it waits for the peer's close_notify
            tls.unwrap()
        await self._flush()
        return True

    def shut_down(self) -> None:
        """Send FIN."""
        with contextlib.suppress(OSError):  # the connection is lost already
            self.socket.shutdown(stdlib_socket.SHUT_WR)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._send_raw(self._outgoing.read())

    async def _fill(self) -> Ending | None:
        data = await self._receive_raw()
        if isinstance(data, Ending):
            return data
        self._incoming.write(data)
        return None

    async def _send_raw(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._reset:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.socket)
            except OSError:
                # The kernel reports the error once, to `send` or to `recv`.
                self._reset = True

    async def _receive_raw(self) -> bytes | Ending:
        while True:
            # A server that always has bytes for us must not keep our deadlines from being noticed.
            await trio.lowlevel.checkpoint()
            try:
                data = self.socket.recv(_READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
            except OSError:  # ETIMEDOUT and EHOSTUNREACH too, which are no ConnectionError
                self._reset = True
                return Ending.RESET
            else:
                return data or (Ending.RESET if self._reset else Ending.FIN)
