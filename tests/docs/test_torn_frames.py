"""The experiment behind docs/cancellation.md: which libraries tear a frame when a send is cancelled."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import pytest

from examples import torn_frames

HAS_WEBSOCKETS = importlib.util.find_spec("websockets.trio") is not None


def sections(text: str) -> dict[str, list[str]]:
    """Split what the experiment prints by library."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith(" "):
            found[name].append(line.strip())
        else:
            name = line.split()[0]
            found[name] = []
    return found


async def test_the_others_tear_a_frame_and_wsframework_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torn_frames, "QUIET_SECONDS", 0.3)
    await torn_frames.main()
    told = sections(capsys.readouterr().out)
    assert list(told) == ["trio-websocket", "websockets", "wsframework"]
    for name in ["trio-websocket", *(["websockets"] if HAS_WEBSOCKETS else [])]:
        assert told[name][:4] == [
            "server: picture 1 was cancelled",
            "server: picture 2 was cancelled",
            "server: <hello> was sent, without an error",
            "client: frame 1 announces 8,000,000 bytes, b'<picture 1>'",
        ]
        assert told[name][4].startswith("TORN: <hello> came as bytes ")
        assert told[name][5].endswith(" bytes are missing; the client waits for them for ever")
        assert len(told[name]) == 6
    assert told["wsframework"] == [
        "server: picture 1 was sent",
        "server: picture 2 was cancelled",
        "server: <hello> was sent, without an error",
        "client: frame 1 announces 8,000,000 bytes, b'<picture 1>'",
        "whole",
        "client: frame 2 announces 7 bytes, b'<hello>'",
        "whole",
    ]


async def test_a_library_that_is_not_installed_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_websockets(name: str, *args: Any) -> Any:
        if name.startswith("websockets"):
            raise ImportError(name)
        return real(name, *args)

    async def nothing(*_: object) -> bytes:
        return b""

    monkeypatch.setattr(builtins, "__import__", without_websockets)
    monkeypatch.setattr(torn_frames, "read_late", nothing)
    await torn_frames.main()
    assert "websockets is not installed" in capsys.readouterr().out.splitlines()


def test_a_torn_frame_and_a_strange_first_byte_are_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    torn_frames.tell(b"\x81\x7e\x00\xc8" + b"." * 100 + b"\x81\x07<hello>")
    assert "TORN: <hello> came as bytes 102 to 109 of it" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="not 7e"):
        torn_frames.tell(b"\x7e\x00")
