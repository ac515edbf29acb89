"""TLS over a non-blocking socket, with a bound on the work of each call.

`ssl.SSLSocket` lets OpenSSL read the descriptor, and OpenSSL returns only when it has data or the kernel has
no more bytes. Records without data, such as the key updates of TLS 1.3, are handled in between: a client that
sends them as fast as it can keeps one call of `recv` busy for as long as it likes, and the event loop with it
(20 s for 8 MB). Therefore OpenSSL reads from memory here, and each call gives it at most the bytes of one
read. That is no slower: OpenSSL itself asks the kernel twice for each record.

Records that bring no data are work as well. Their bytes count as a debt, which data pays for. A client that
owes too much is disconnected.
"""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["RECORD_BYTES", "TLSSocket", "has_pending"]

RECORD_BYTES = 16 * 1024
"""The most data of one record (RFC 8446 §5.1)."""

_READ_BYTES = RECORD_BYTES + 256
"""One whole record, with what TLS adds to it. As many bytes of key updates take 6 ms."""

_ALLOWED_DEBT_BYTES = 64 * 1024
"""Bytes that may come without data. A record that is not complete yet has at most a quarter of that."""

_PAID_BYTES = 64
"""What a byte of data pays for: the smallest record with a message has 7 bytes of data and 22 others."""

_receive = stdlib_socket.socket.recv
_transmit = stdlib_socket.socket.send


class TLSSocket(stdlib_socket.socket):
    """The server's end of a TLS connection; it takes the place of an `ssl.SSLSocket`.

    What waits raises `BlockingIOError`, `ssl.SSLWantReadError` or `ssl.SSLWantWriteError`, as there.

    Args:
        plain: connected, non-blocking; its descriptor moves to this object.
        context: for servers.
    """

    __slots__ = (
        "_begun",
        "_debt",
        "_decrypt",
        "_encrypt",
        "_ended",
        "_handshaken",
        "_outgoing",
        "_said_goodbye",
        "_tls",
        "_unsent",
        "incoming",
    )

    def __init__(self, plain: stdlib_socket.socket, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        """Encrypted bytes that have left the kernel."""
        self._outgoing = ssl.MemoryBIO()
        tls = context.wrap_bio(self.incoming, self._outgoing, server_side=True)
        self._tls: ssl.SSLObject | None = tls
        # Bound once: these are called for each message.
        self._decrypt: Callable[[int], bytes] = tls.read
        self._encrypt: Callable[[bytes | memoryview], int] = tls.write
        self._unsent = b""  # encrypted bytes that the socket has not taken
        self._begun = False  # whether those of the piece that `send` was given are among them
        self._debt = 0
        self._handshaken = False
        self._said_goodbye = False
        self._ended = False
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.setblocking(False)

    # What the request may ask for

    @property
    def context(self) -> ssl.SSLContext:
        """The context: the given one, or the one that its `sni_callback` has chosen."""
        return self._object.context

    def version(self) -> str | None:
        """Return the version of TLS, or None once the socket is closed."""
        return None if self._tls is None else self._tls.version()

    def getpeercert(self, binary_form: bool = False, /) -> Mapping[str, Any] | bytes | None:
        """Return the client's certificate, in DER or as a mapping; None if it has shown none."""
        return None if self._tls is None else self._tls.getpeercert(binary_form)

    # In

    def do_handshake(self) -> None:
        """Take the next step of the handshake; it is complete if this returns.

        Raises:
            OSError: it has failed, or has to wait.
        """
        self._flush()
        if not self._handshaken:
            self.incoming.write(self._read_socket())
            try:
                self._object.do_handshake()
                self._handshaken = True
            except ssl.SSLWantReadError:
                self._take_outgoing()
                if not self._unsent:
                    raise
                # The client answers when it has all of ours: below.
            finally:
                self._take_outgoing()  # an alert, if it has failed
        if self._unsent:
            raise ssl.SSLWantWriteError

    def recv(self, size: int = RECORD_BYTES, flags: int = 0) -> bytes:
        """Return the data of one record; b"" at the end.

        Args:
            size: not used: a record is returned whole.
            flags: 0.
        """
        incoming, got = self.incoming, 0
        if not incoming.pending:
            if self._ended:
                return b""
            if self._unsent and not self._begun:
                self._flush()  # answers to the client's records: whoever does not take them is not read
            data = _receive(self, _READ_BYTES)
            if not data or self._said_goodbye:
                return data  # after our goodbye it is only dropped
            incoming.write(data)
            got = len(data)
        try:
            data = self._decrypt(RECORD_BYTES)
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLWantReadError:
            self._owe(self._debt + got)
            raise
        finally:
            if self._outgoing.pending:
                self._take_outgoing()
        if not data:
            self._ended = True
        debt = self._debt + got - _PAID_BYTES * len(data)
        if debt > 0:
            self._owe(debt)
        else:
            self._debt = 0
        return data

    def pending(self) -> int:
        """Return how many bytes have been read that no poll reports."""
        return 0 if self._said_goodbye else self.incoming.pending

    def _read_socket(self) -> bytes:
        data = super().recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the peer left within the TLS handshake")
        return data

    def _owe(self, debt: int) -> None:
        self._debt = debt
        if debt > _ALLOWED_DEBT_BYTES:
            raise ConnectionAbortedError("too many TLS records that carry nothing")

    # Out

    def send(self, piece: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        """Send a piece of at most one record, whole.

        Raises:
            OSError: the socket has not taken all of it. Unless the connection is over, the next call must
                have the same piece.
        """
        if not self._begun and not self._unsent:
            self._encrypt(piece)
            data = self._outgoing.read()
            try:
                sent = _transmit(self, data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return len(piece)
            self._unsent = data[sent:]
            self._begun = True
            raise ssl.SSLWantWriteError
        if not self._begun:
            self._encrypt(piece)
            self._unsent += self._outgoing.read()
            self._begun = True
        self._flush()
        self._begun = False
        return len(piece)

    def unwrap(self) -> None:
        """Send close_notify, and do not wait for the peer's.

        Raises:
            OSError: the socket has not taken all of it.
        """
        if not self._said_goodbye:
            self._said_goodbye = True
            with suppress(ssl.SSLError):
                self._object.unwrap()
            self._unsent += self._outgoing.read()
        self._flush()

    def _take_outgoing(self) -> None:
        """Send what OpenSSL has written by itself, as far as the socket takes it."""
        self._unsent += self._outgoing.read()
        with suppress(OSError):  # the next call tells
            self._flush()

    def _flush(self) -> None:
        if not self._unsent:
            return
        try:
            sent = super().send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        if self._unsent:
            raise ssl.SSLWantWriteError

    # The end

    @property
    def _object(self) -> ssl.SSLObject:
        if self._tls is None:
            _refuse(self)
        return self._tls

    def close(self) -> None:
        """Close the descriptor, and free the state of TLS even if somebody keeps this object."""
        self._tls = None
        self._decrypt = self._encrypt = _refuse
        super().close()


def _refuse(_: object) -> NoReturn:
    raise OSError("the TLS connection is closed")


def has_pending(socket: stdlib_socket.socket) -> bool:
    """Whether a socket, with TLS or without, has bytes that no poll reports."""
    return isinstance(socket, TLSSocket) and socket.pending() > 0
