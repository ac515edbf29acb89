from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from tests.cli.test_output import Terminal
from wsframework.cli.logs import LogFormat, LogLevel, TextFormatter, set_up_logging
from wsframework.records import JsonFormatter, record


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
    assert rest == ["  ValueError: why"]


FAKE = "10:54:23.123 info connection.closed how=faked"


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def noted(*notes: str) -> Exception:
    error = ValueError("why")
    for note in notes:
        error.add_note(note)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"why\n{FAKE}"),
        ValueError(f"why\r\n{FAKE}\u2028{FAKE}\x0b{FAKE}\x85{FAKE}"),
        noted(f"a note\n{FAKE}", FAKE),
        ExceptionGroup(f"many\n{FAKE}", [ValueError(f"why\n{FAKE}"), noted(FAKE)]),
        KeyError(f"why\n{FAKE}"),
    ],
    ids=["message", "other ends of lines", "note", "group", "repr"],
)
def test_no_text_of_an_exception_can_look_like_a_record(error: Exception) -> None:
    entry = make_record("handler.crashed", logging.ERROR, error=raised(error))
    first, *rest = TextFormatter(colour=False).format(entry).splitlines()
    assert first.endswith("error handler.crashed")
    assert rest
    assert all(line.startswith("  ") for line in rest)


def test_a_message_of_several_lines_is_one_line() -> None:
    line = TextFormatter(colour=False).format(make_record(f"hello\n{FAKE}\ttab"))
    assert line.endswith(f"info hello\\n{FAKE}\\ttab")


def test_a_stack_stands_below_its_record_whoever_made_it(caplog: pytest.LogCaptureFixture) -> None:
    record(logging.ERROR, "task.stuck", stack="File 'a', line 1\nFile 'b', line 2\x1b")
    logging.getLogger("somebody").error("else's", stack_info=True)
    ours, theirs = (TextFormatter(colour=False).format(entry).splitlines() for entry in caplog.records)
    assert ours[1:] == ["  File 'a', line 1", "  File 'b', line 2\\x1b"]
    assert theirs[1] == "  Stack (most recent call last):"
    values = [json.loads(JsonFormatter().format(entry)) for entry in caplog.records]
    assert values[0]["stack"].startswith("File 'a', line 1\n")
    assert "most recent" in values[1]["stack"]


def test_the_peers_control_characters_cannot_reach_the_terminal() -> None:
    line = TextFormatter(colour=False).format(make_record("connection.closed how=\x1b[2J\x07\x9b1A\x7f"))
    assert line.endswith(r"how=\x1b[2J\x07\x9b1A\x7f")


def test_whatever_acts_on_a_terminal_is_escaped_in_text_and_in_json() -> None:
    bad = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]  # C0, DEL, C1
    bad += "\u200b\u200d\u200e\u202a\u202e\u2028\u2029\u2066\u2069\ufeff\u3164\udfff\ud800\U000e0041"
    text = "".join(bad)
    entry = make_record(text, logging.ERROR, error=raised(ValueError(text)))
    entry.name = entry.levelname = f"a{text}b"
    for formatter in (TextFormatter(colour=False), JsonFormatter()):
        line = formatter.format(entry)
        assert [c for c in bad if c in line] in ([], ["\n"])
        line.encode()
    assert json.loads(JsonFormatter().format(entry))["message"] == text


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


@pytest.mark.parametrize("form", LogFormat)
def test_a_stream_that_is_not_utf_8_gets_whole_records_too(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, "ascii", errors="backslashreplace"))
    set_up_logging(LogLevel.INFO, form)
    record(logging.INFO, "event", value="na\xefve \u2603 \U0001f600")
    sys.stderr.flush()
    line = written.getvalue()
    if form is LogFormat.JSON:
        assert json.loads(line)["value"] == "na\xefve \u2603 \U0001f600"
    else:
        assert line.endswith(b'value="na\\xefve \\u2603 \\U0001f600"\n')


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


def test_every_record_of_a_worker_has_its_number() -> None:
    entry = logging.makeLogRecord({"name": "mine", "msg": "hello", "levelname": "INFO", "levelno": 20})
    assert " [2] info hello" in TextFormatter(colour=False, worker=2).format(entry)
    assert json.loads(JsonFormatter(worker=2).format(entry))["worker"] == 2
