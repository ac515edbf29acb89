"""What is read from kernels, by the byte."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

import pytest

from tests.diagnostics.broken import LINUX
from wsframework.diagnostics import kernel
from wsframework.diagnostics.kernel import read_kernel, read_state, time_wait_ends

LITTLE = pytest.mark.skipif(sys.byteorder != "little", reason="the tables here are a little-endian machine's")


class Told:
    """A socket whose kernel says what it is told to."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if not self.data:
            raise OSError("no such option")
        return self.data[:size]


def told(*, state: int = 1, options: int = 0, scales: int = 0, size: int = 256) -> Told:
    words = [0] * 24
    words[2], words[15], words[16], words[23] = 1448, 25_000, 5_000, 2
    data = bytes((state, 0, 0, 0, 0, options, scales, 0))
    data += struct.pack("=24I4Q2I", *words, 0, 0, 100, 200, 7, 6)
    return Told(data[:size])


@LINUX
def test_tcp_info_is_read_by_its_fields() -> None:
    found = read_kernel(told(options=0b1111, scales=0xA7))  # type: ignore[arg-type]
    assert found is not None
    assert (found.state, found.round_trip, found.round_trip_deviation) == ("ESTABLISHED", 0.025, 0.005)
    assert (found.segment_bytes, found.retransmissions) == (1448, 2)
    assert found.options == ("timestamps", "SACK", "window scaling", "ECN")
    assert sorted([found.send_window_scale or 0, found.receive_window_scale or 0]) == [7, 10]
    assert (found.bytes_acknowledged, found.bytes_received) == (100, 200)
    assert (found.segments_sent, found.segments_received) == (7, 6)


@LINUX
def test_what_an_old_kernel_does_not_tell_is_none() -> None:
    found = read_kernel(told(size=104))  # type: ignore[arg-type]
    assert found is not None
    assert (found.send_window_scale, found.segments_sent, found.bytes_received) == (None, None, None)
    assert read_kernel(told(size=50)) is None  # type: ignore[arg-type]
    assert read_state(told(state=8, size=50)) == "CLOSE_WAIT"  # type: ignore[arg-type]


@LINUX
def test_what_is_no_tcp_info_is_none() -> None:
    assert read_state(Told(b"")) is None  # type: ignore[arg-type]
    assert read_kernel(told(state=99)) is None  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as unix:
        assert read_state(unix) is None


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 576 1 0
   1: 0100007F:0BB8 0100007F:D431 06 00000000:00000000 03:00000F1D 00000000     0        0 0 3 0
"""

TABLE6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 0000000000000000FFFF00000100007F:0BB8 0000000000000000FFFF00000100007F:D432 06 00000000:00000000 03
   1: 00000000000000000000000001000000:D433 00000000000000000000000001000000:0BB8 06 00000000:00000000 03
"""


@LITTLE
def test_time_wait_is_found_for_both_ends_and_both_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcp").write_text(TABLE)
    monkeypatch.setattr(kernel, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    assert time_wait_ends(("127.0.0.1", 54321), ("127.0.0.1", 3000)) == ("server",)
    assert time_wait_ends(("127.0.0.1", 3000), ("127.0.0.1", 54321)) == ("client",)
    assert time_wait_ends(("127.0.0.1", 54322), ("127.0.0.1", 3000)) == ()
    (tmp_path / "tcp6").write_text(TABLE6)
    # A server on :: that serves IPv4 clients has its end of them in the other table.
    assert time_wait_ends(("127.0.0.1", 54322), ("127.0.0.1", 3000)) == ("server",)
    assert time_wait_ends(("::1", 54323), ("::1", 3000)) == ("client",)
    assert time_wait_ends(("fe80::1%eth0", 1), ("::1", 2)) == ()


def test_without_the_table_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_TABLES", (tmp_path / "none", tmp_path / "neither"))
    assert time_wait_ends(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
