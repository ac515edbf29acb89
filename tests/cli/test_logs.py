from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from tests.cli.test_output import Terminal
from wsframework.cli.logs import LogFormat, LogLevel, TextFormatter, set_up_logging
from wsframework.records import record


def make_record(
    message: str, level: int = logging.INFO, *, error: Exception | None = None
) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("wsframework", level, __file__, 1, message, (), exc_info)


def test_a_record_is_a_line_with_time_level_and_text() -> None:
    line = TextFormatter(colour=False).format(make_record("connection.opened path=/"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d info connection\.opened path=/", line)


def test_a_traceback_follows_its_record() -> None:
    entry = make_record("handler.crashed", logging.ERROR, error=ValueError("why"))
    first, *rest = TextFormatter(colour=False).format(entry).splitlines()
    assert first.endswith("error handler.crashed")
    assert rest == ["ValueError: why"]


def test_the_peers_control_characters_cannot_reach_the_terminal() -> None:
    line = TextFormatter(colour=False).format(make_record("connection.closed how=\x1b[2J\x07\x9b1A\x7f"))
    assert line.endswith(r"how=\x1b[2J\x07\x9b1A\x7f")


def test_colour_tells_the_level_and_the_event() -> None:
    line = TextFormatter(colour=True).format(make_record("guard.timeout path=/ a", logging.WARNING))
    assert line.endswith("\x1b[33mwarning\x1b[0m \x1b[1mguard.timeout\x1b[0m path=/ a")


def test_text_goes_to_stderr_plain_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogLevel.INFO, LogFormat.TEXT)
    record(logging.INFO, "server.listening", on="here")
    logging.getLogger("somebody").info("else's")
    record(logging.DEBUG, "too.quiet")
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.endswith(" info server.listening on=here")
    assert second.endswith(" info else's")
    assert not out
    assert "\x1b" not in err


def test_text_has_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up_logging(LogLevel.ERROR, LogFormat.TEXT)
    record(logging.ERROR, "handler.crashed")
    assert "\x1b[31merror\x1b[0m \x1b[1mhandler.crashed" in terminal.getvalue()


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogLevel.DEBUG, LogFormat.JSON)
    record(logging.DEBUG, "http.answered", status=404, path="/a b")
    logging.getLogger("somebody").warning("two\nlines")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["event"], first["status"], first["path"]) == (
        "debug",
        "http.answered",
        404,
        "/a b",
    )
    assert (second["logger"], second["message"]) == ("somebody", "two\nlines")
