"""TLS over a non-blocking socket: what one call may do, what a client owes, what the socket does not take."""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server.tls13 import ClientRecords, client_secret
from wsframework.server.socket import NOT_NOW
from wsframework.server.tls_socket import TLSSocket


class Ends:
    """A `TLSSocket` and a client, after their handshake.

    Attributes:
        records: what the client sends.
    """

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext], folder: Path) -> None:
        contexts[1].keylog_filename = str(folder / "keys")
        ours, self.client = stdlib_socket.socketpair()
        ours.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 50_000)
        ours.setblocking(False)
        self.client.setblocking(False)
        self.server = TLSSocket(ours, contexts[0])
        self._incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = contexts[1].wrap_bio(self._incoming, outgoing, server_hostname="localhost")
        done = False
        while not done:
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
            self.client.sendall(outgoing.read())
            with suppress(*NOT_NOW):
                self.server.do_handshake()
                done = True
            self._take()
        assert self._tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        self.records = ClientRecords(client_secret((folder / "keys").read_text()))

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while data := self.client.recv(65_536):
                self._incoming.write(data)

    def received(self) -> bytes:
        """Return what the client has been sent."""
        self._take()
        found = b""
        with suppress(ssl.SSLWantReadError):
            while data := self._tls.read():
                found += data
        return found

    def close(self) -> None:
        self.server.close()
        self.client.close()


@pytest.fixture
def ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> Iterator[Ends]:
    both = Ends(contexts, tmp_path)
    yield both
    both.close()


def test_one_call_reads_one_piece_of_a_flood_of_key_updates_and_the_flood_ends_soon(ends: Ends) -> None:
    flood = b"".join([ends.records.key_update() for _ in range(4_000)])
    assert ends.client.send(flood) > 80_000
    for _ in range(3):
        with pytest.raises(ssl.SSLWantReadError):
            ends.server.recv()
    with pytest.raises(ConnectionAbortedError, match="records that carry nothing"):
        ends.server.recv()


def test_a_flood_with_a_little_data_in_between_ends_too(ends: Ends) -> None:
    def flood() -> None:
        for _ in range(100):
            updates = [ends.records.key_update() for _ in range(200)]
            ends.client.sendall(b"".join([*updates, ends.records.data(b"x")]))
            with suppress(*NOT_NOW):
                while True:
                    ends.server.recv()

    with pytest.raises(ConnectionAbortedError):
        flood()


def test_key_updates_between_messages_are_answered_for_ever(ends: Ends) -> None:
    for number in range(1_000):
        ends.client.sendall(ends.records.key_update(requested=True) + ends.records.data(b"%d" % number))
        assert ends.server.recv() == b"%d" % number
        ends.server.send(b"and %d" % number)
        assert ends.received() == b"and %d" % number


def test_an_answer_to_a_record_goes_out_behind_a_piece_that_is_being_sent(ends: Ends) -> None:
    piece, taken = bytes(16_384), 0
    with suppress(ssl.SSLWantWriteError):
        while True:
            taken += ends.server.send(piece)
    ends.client.sendall(ends.records.key_update(requested=True) + ends.records.data(b"hello"))
    assert ends.server.recv() == b"hello"
    received = ends.received()
    assert ends.server.send(piece) == len(piece), "the rest of the same piece"
    assert received + ends.received() == bytes(taken + len(piece))
    ends.server.send(b"the next")
    assert ends.received() == b"the next"


def test_who_does_not_take_what_tls_itself_sends_is_not_read(ends: Ends) -> None:
    with suppress(BlockingIOError):
        while True:
            stdlib_socket.socket.send(ends.server, bytes(1_000))
    ends.client.sendall(ends.records.data(b"hello"))
    ends.server._unsent = bytes(1_000)
    with pytest.raises(ssl.SSLWantWriteError):
        ends.server.recv()
    with suppress(BlockingIOError):
        while True:
            ends.client.recv(65_536)
    assert ends.server.recv() == b"hello"


def test_records_that_came_together_are_returned_one_by_one_and_then_the_end(ends: Ends) -> None:
    ends.client.sendall(ends.records.data(b"one") + ends.records.data(b"two"))
    assert ends.server.recv() == b"one"
    assert ends.server.pending() > 0
    assert ends.server.recv() == b"two"
    assert ends.server.pending() == 0
    with pytest.raises(BlockingIOError):
        ends.server.recv()
    ends.client.sendall(ends.records.data(b"three") + ends.records._record(21, b"\1\0"))
    assert ends.server.recv() == b"three"
    assert ends.server.pending() > 0, "no poll reports the end"
    assert ends.server.recv() == ends.server.recv() == b""


def test_a_record_that_comes_byte_by_byte_is_no_flood(ends: Ends) -> None:
    for _ in range(5):
        record = ends.records.data(bytes(16_384))
        for byte in record[:-1]:
            ends.client.send(bytes([byte]))
            with pytest.raises(ssl.SSLWantReadError):
                ends.server.recv()
        ends.client.send(record[-1:])
        assert ends.server.recv() == bytes(16_384)


def test_the_goodbye_goes_out_behind_a_piece_and_what_comes_then_is_dropped(ends: Ends) -> None:
    assert ends.server.send(b"bye") == 3
    ends.server.unwrap()
    ends.server.unwrap()
    assert ends.received() == b"bye"
    with suppress(ssl.SSLZeroReturnError):
        assert ends._tls.read() == b"", "close_notify"
    ends.client.sendall(b"no record")
    assert ends.server.recv()
    assert ends.server.pending() == 0


def test_a_closed_socket_has_freed_what_tls_needs(ends: Ends) -> None:
    assert ends.server.version() == "TLSv1.3"
    ends.server.close()
    assert ends.server.version() is None
    assert ends.server.getpeercert() is None
    with pytest.raises(OSError, match="closed"):
        ends.server.send(b"x")


def test_a_client_that_leaves_within_the_handshake_is_an_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = stdlib_socket.socketpair()
    server = TLSSocket(ours, contexts[0])
    with pytest.raises(BlockingIOError):
        server.do_handshake()
    theirs.close()
    with pytest.raises(ConnectionResetError):
        server.do_handshake()
    server.close()


def test_the_context_is_the_one_that_was_chosen_by_the_clients_server_name(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.sni_callback = lambda tls, name, context: setattr(tls, "context", contexts[0])
    ends = Ends((first, contexts[1]), tmp_path)
    assert ends.server.context is contexts[0]
    ends.close()
