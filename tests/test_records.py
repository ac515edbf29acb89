from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

import pytest

from wsframework.records import JsonFormatter, record


def fields_of(entry: logging.LogRecord) -> Any:
    return entry.__dict__["fields"]


def test_a_record_reads_as_its_event_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    record(logging.INFO, "connection.opened", path="/chat", remote="127.0.0.1:5123", subprotocol=None)
    (entry,) = caplog.records
    assert entry.name == "wsframework"
    assert entry.getMessage() == "connection.opened path=/chat remote=127.0.0.1:5123"
    assert entry.__dict__["event"] == "connection.opened"
    assert fields_of(entry) == {"path": "/chat", "remote": "127.0.0.1:5123"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (0, "0"),
        ("", '""'),
        ("two words", '"two words"'),
        ("two\nlines", '"two\\nlines"'),
        ("carriage\rreturn", '"carriage\\rreturn"'),
        ("tab\tstop", '"tab\\tstop"'),
        ('a"quote', '"a\\"quote"'),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("c1\x9bcontrol", '"c1\\u009bcontrol"'),
        ("line\u2028separator", '"line\\u2028separator"'),
        ("naïve ☃", '"naïve ☃"'),
    ],
)
def test_no_value_can_break_its_line_or_reach_the_terminal(
    caplog: pytest.LogCaptureFixture, value: object, text: str
) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    record(logging.INFO, "event", value=value)
    assert caplog.records[0].getMessage() == f"event value={text}"


def test_a_percent_sign_in_a_field_is_no_format(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    record(logging.INFO, "event", path="/100%25/%s")
    assert caplog.records[0].getMessage() == "event path=/100%25/%s"


def test_a_record_below_the_level_costs_no_formatting(caplog: pytest.LogCaptureFixture) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("nobody asked for it")

    caplog.set_level(logging.WARNING, "wsframework")
    record(logging.INFO, "event", value=Unprintable())
    assert not caplog.records


def test_a_record_points_at_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    record(logging.INFO, "event")
    assert caplog.records[0].pathname == __file__


def test_json_is_one_object_a_line_with_the_events_own_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    record(logging.WARNING, "guard.timeout", path="/naïve", seconds=0.5, remote=("10.0.0.1", 1), odd={1})
    line = JsonFormatter().format(caplog.records[0])
    assert "\n" not in line
    value = json.loads(line)
    time = datetime.fromisoformat(value.pop("time"))
    assert time.timestamp() == pytest.approx(caplog.records[0].created, abs=0.001)
    assert time.tzinfo is not None
    assert value == {
        "level": "warning",
        "logger": "wsframework",
        "event": "guard.timeout",
        "path": "/naïve",
        "seconds": 0.5,
        "remote": ["10.0.0.1", 1],
        "odd": "{1}",  # what JSON does not know is written as text
    }


def test_json_carries_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record(logging.ERROR, "handler.crashed", exc_info=error)
    value = json.loads(JsonFormatter().format(caplog.records[0]))
    assert value["event"] == "handler.crashed"
    assert value["traceback"].startswith("Traceback (most recent call last):")
    assert value["traceback"].endswith("ValueError: broken")


def test_json_takes_the_records_of_other_libraries_too() -> None:
    entry = logging.LogRecord("other", logging.INFO, __file__, 1, "hello %s", ("you",), None)
    value = json.loads(JsonFormatter().format(entry))
    del value["time"]
    assert value == {"level": "info", "logger": "other", "message": "hello you"}
