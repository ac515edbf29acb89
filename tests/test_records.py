from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import trio

from wsframework.records import JsonFormatter, describe, interrupts_passed_to, logger, record


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


# Bounds

LONG = "x" * 1024 * 1024


def lines_of(caplog: pytest.LogCaptureFixture, **fields: Any) -> tuple[str, str]:
    """Return a record as text and as JSON."""
    record(logging.ERROR, "event", **fields)
    return caplog.records[-1].getMessage(), JsonFormatter().format(caplog.records[-1])


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class Huge:
    def __str__(self) -> str:
        return LONG


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        "\x00" * len(LONG),
        LONG.encode(),
        bytearray(LONG.encode()),
        Huge(),
        [LONG] * 100,
        {LONG: {LONG: [LONG]}},
        dict.fromkeys(range(100_000)),
        set(range(100_000)),
        10**100_000,
        ValueError(LONG),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_field_has_a_bound(caplog: pytest.LogCaptureFixture, value: object) -> None:
    text, line = lines_of(caplog, value=value)
    assert len(text) < 16 * 1024
    assert len(line) < 160 * 1024
    json.loads(line)


def test_what_is_cut_off_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    text, line = lines_of(caplog, value="x" * 2148)
    assert text.endswith('x… (100 more characters)"')
    assert json.loads(line)["value"] == "x" * 2048 + "… (100 more characters)"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), RecursionError()], ids=repr)
def test_a_value_that_cannot_be_written_is_named(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    text, line = lines_of(caplog, value=Raising(error), deep=[Raising(error)], key={Raising(error): 1})
    assert 'value="<Raising, whose str() fails>"' in text
    assert json.loads(line)["value"] == "<Raising, whose str() fails>"


def test_an_exception_whose_repr_fails_can_be_described() -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise SystemExit

    assert describe(Broken()).endswith("Broken, whose repr() fails>")
    assert len(describe(ValueError(LONG))) < 3000


def test_json_stays_json_whatever_the_fields_are(caplog: pytest.LogCaptureFixture) -> None:
    circle: list[Any] = []
    circle.append(circle)
    fields = {"nan": math.nan, "inf": -math.inf, "circle": circle, "keys": {(1, 2): 3}, "big": 2**80}
    _, line = lines_of(caplog, **fields, time="mine", logger="mine", level="mine", message="mine")
    value = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert (value["nan"], value["inf"], value["keys"], value["big"]) == (
        "nan",
        "-inf",
        {"(1, 2)": 3},
        str(2**80),
    )
    assert (value["field.time"], value["logger"], value["message"]) == ("mine", "wsframework", "mine")


def chained() -> BaseException:
    error: BaseException = ValueError(LONG)
    for _ in range(100):
        try:
            raise KeyError(LONG) from error
        except KeyError as caught:
            error = caught
    return error


def with_notes() -> BaseException:
    error = ValueError(LONG)
    for note in (LONG, "x\n" * len(LONG), "\u202e" * len(LONG)):
        error.add_note(note)
    return error


def nested() -> BaseException:
    error: Exception = with_notes()  # type: ignore[assignment]
    for _ in range(20):
        error = ExceptionGroup(LONG, [error, ValueError(LONG)])
    return error


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What is recorded, kept from pytest's handlers: they would format a million lines of traceback."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    logger = logging.getLogger("wsframework")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.mark.parametrize("make", [chained, with_notes, nested], ids=lambda make: make.__name__)
def test_a_traceback_has_a_bound(kept: list[logging.LogRecord], make: Callable[[], BaseException]) -> None:
    record(logging.ERROR, "handler.crashed", exc_info=make())
    traceback = json.loads(JsonFormatter().format(kept[0]))["traceback"]
    assert len(traceback) < 32 * 1024
    assert "more characters)" in traceback


def test_the_exception_itself_is_not_what_is_cut_off(kept: list[logging.LogRecord]) -> None:
    try:
        raise ValueError("the one that matters") from chained()
    except ValueError as error:
        record(logging.ERROR, "handler.crashed", exc_info=error)
    traceback = json.loads(JsonFormatter().format(kept[0]))["traceback"]
    assert traceback.endswith("ValueError: the one that matters")
    assert "in test_the_exception_itself_is_not_what_is_cut_off" in traceback


def test_a_message_that_does_not_fit_its_arguments_is_written_all_the_same() -> None:
    entry = logging.LogRecord("other", logging.INFO, __file__, 1, "%d %s", ("you",), None)
    assert json.loads(JsonFormatter().format(entry))["message"].startswith("%d %s (this message cannot")
    entry = logging.LogRecord("other", logging.INFO, __file__, 1, LONG, (), None)
    assert len(JsonFormatter().format(entry)) < 32 * 1024


def test_another_librarys_event_needs_no_fields() -> None:
    entry = logging.LogRecord("other", logging.INFO, __file__, 1, "hello", (), None)
    entry.event, entry.fields = "greeting", "none"
    value = json.loads(JsonFormatter().format(entry))
    assert value["event"] == "greeting"
    entry.event = 7
    assert json.loads(JsonFormatter().format(entry))["message"] == "hello"


class Broken(logging.Handler):
    """A program's own, with a mistake."""

    def emit(self, entry: logging.LogRecord) -> None:
        # What was to be logged is the context of what goes wrong.
        if entry.exc_info and entry.exc_info[1] is not None:
            raise LookupError("in the handler") from entry.exc_info[1]
        raise LookupError("in the handler")


class Masked(Exception):
    """Breaks the standard library's traceback."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


def test_a_handler_that_raises_does_not_end_what_it_hears_of(capsys: pytest.CaptureFixture[str]) -> None:
    handler = Broken()
    logger = logging.getLogger("wsframework")
    logger.addHandler(handler)
    try:
        record(logging.ERROR, "connection.failed")
        record(logging.ERROR, "connection.failed", exc_info=Masked())
    finally:
        logger.removeHandler(handler)


class Interrupts(logging.Handler):
    def emit(self, entry: logging.LogRecord) -> None:
        raise KeyboardInterrupt


class Evil:
    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.fixture
def interrupting() -> Iterator[None]:
    handler = Interrupts()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("interrupting")
async def test_a_keyboard_interrupt_of_a_log_handler_goes_to_the_server_that_began_last() -> None:
    told: list[str] = []
    with interrupts_passed_to(lambda _: told.append("one")):
        with interrupts_passed_to(lambda _: told.append("two")):
            record(logging.ERROR, "an.event")
        record(logging.ERROR, "an.event")
        record(logging.ERROR, "an.event", field=Evil())
        with pytest.raises(KeyboardInterrupt):
            await trio.to_thread.run_sync(record, logging.ERROR, "of.a.thread")
    assert told == ["two", "one", "one"]
    with pytest.raises(KeyboardInterrupt):
        record(logging.ERROR, "an.event")


@pytest.mark.usefixtures("interrupting")
def test_a_keyboard_interrupt_of_a_log_handler_is_raised_where_there_is_no_trio() -> None:
    with pytest.raises(KeyboardInterrupt):
        record(logging.ERROR, "an.event")
