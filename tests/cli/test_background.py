"""A handler whose reader may sleep, wake up late, or go away."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from wsframework.cli import background
from wsframework.cli.background import BackgroundHandler
from wsframework.records import JsonFormatter


class Pipe:
    """A handler that writes into a pipe, and the pipe's other end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.handler = BackgroundHandler(self.writer)
        self.logger = logging.Logger("test")
        self.logger.addHandler(self.handler)

    def read_all(self) -> list[str]:
        """Close the handler and return every line that it wrote."""
        pieces: list[bytes] = []

        def read() -> None:
            while piece := os.read(self.reader, 1 << 20):
                pieces.append(piece)

        thread = threading.Thread(target=read)
        thread.start()
        self.handler._stuck = False
        self.handler.close()
        os.close(self.writer)
        self.writer = -1
        thread.join(20)
        return b"".join(pieces).decode().splitlines()

    def read_some(self) -> str:
        return os.read(self.reader, 1 << 16).decode()

    def close(self) -> None:
        os.close(self.reader)
        self.handler._stuck = False  # without a reader it is done at once
        self.handler.close()
        if self.handler._thread is not None:
            self.handler._thread.join(20)
        if self.writer >= 0:
            os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


LINE = "x" * 1000


def fill(pipe: Pipe) -> None:
    """Log until the pipe and the queue are full."""
    number = 0
    while not pipe.handler._dropped:
        pipe.logger.info("%d %s", number, LINE)
        number += 1


def test_the_end_waits_for_what_was_not_written_in_time_at_an_error(pipe: Pipe) -> None:
    # The pipe is full, and its reader comes after the twentieth of a second that an error waits.
    for number in range(100):
        pipe.logger.info("%d %s", number, LINE)
    pipe.logger.error("the reason")

    def read() -> None:
        text = ""
        while "the reason" not in text:
            text += pipe.read_some()

    late = threading.Timer(0.1, read)
    late.start()
    pipe.handler.flush()
    assert not pipe.handler._queue
    late.join(20)


def test_lines_come_in_order_and_whole(pipe: Pipe) -> None:
    for number in range(3000):
        pipe.logger.info("%d %s", number, "y" * (number % 700))
        if number % 100 == 0:
            pipe.read_some()
    lines = pipe.read_all()
    numbers = [int(line.split()[0]) for line in lines if line[:1].isdigit()]
    assert numbers[-1] == 2999
    assert numbers == sorted(numbers)


def test_a_reader_that_sleeps_holds_up_nobody_and_hears_what_was_dropped(pipe: Pipe) -> None:
    start = time.monotonic()
    fill(pipe)
    for _ in range(5000):
        pipe.logger.info(LINE)
    for _ in range(500):
        pipe.logger.error("an error %s", LINE)
    assert time.monotonic() - start < 10, "10,000 records wait for nothing"
    dropped = pipe.handler._dropped, pipe.handler._dropped_errors
    assert 0 < dropped[1] < 500, "there is more room for errors"
    lines = pipe.read_all()
    numbers = [int(line.split()[0]) for line in lines if line[:1].isdigit()]
    assert numbers == list(range(len(numbers))), "what was queued is there, in order"
    assert lines[-1] == f"log.dropped records={dropped[0]} errors={dropped[1]}"
    assert sum(map(len, lines)) < 2 * background._QUEUE_BYTES_FOR_ERRORS


def test_what_was_dropped_is_told_once_and_then_it_goes_on(pipe: Pipe) -> None:
    pipe.handler.setFormatter(JsonFormatter())
    fill(pipe)
    seen = ""
    while "log.dropped" not in seen:
        seen += pipe.read_some()
    pipe.logger.info("again")
    lines = [*seen.splitlines(), *pipe.read_all()]
    told, last = map(json.loads, lines[-2:])
    assert (told["event"], told["level"], told["records"], told["errors"]) == ("log.dropped", "warning", 1, 0)
    assert last["message"] == "again"


def test_the_end_waits_for_a_second_and_no_longer(pipe: Pipe) -> None:
    fill(pipe)
    start = time.monotonic()
    pipe.handler.flush()
    pipe.handler.close()
    pipe.logger.error("after the end")
    assert 0.9 < time.monotonic() - start < 25


def test_what_is_logged_after_the_end_is_written_at_once(pipe: Pipe) -> None:
    pipe.logger.info("before")
    pipe.handler.close()
    pipe.logger.info("after")
    assert pipe.read_some() == "before\nafter\n"


def test_an_error_is_written_when_the_call_returns(pipe: Pipe) -> None:
    pipe.logger.info("first")
    pipe.logger.error("second")
    os.set_blocking(pipe.reader, False)
    assert pipe.read_some() == "first\nsecond\n"


def test_a_record_says_what_was_true_when_it_was_logged(pipe: Pipe) -> None:
    fill(pipe)
    while pipe.handler._dropped:
        pipe.read_some()
    value = [1]
    pipe.logger.info("value %s", value)
    value.append(2)
    assert pipe.read_all()[-1] == "value [1]"


def test_a_descriptor_that_does_not_block_gets_everything_too(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    for number in range(400):
        pipe.logger.info("%d %s", number, LINE)
    lines = pipe.read_all()
    assert [int(line.split()[0]) for line in lines] == list(range(400))


def test_a_reader_that_has_gone_hurts_nobody(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.reader = os.open(os.devnull, os.O_RDONLY)
    for _ in range(100):
        pipe.logger.error(LINE)
    pipe.handler.flush()
    assert pipe.handler._thread is not None
    assert pipe.handler._thread.is_alive()


def test_a_record_that_cannot_be_formatted_is_counted(pipe: Pipe) -> None:
    pipe.logger.error("%d", "no number")
    pipe.logger.info("next")
    assert pipe.read_all() == ["next", "log.dropped records=1 errors=1"]


def test_a_finalizer_may_log_while_its_thread_does(pipe: Pipe) -> None:
    class Logging(logging.Formatter):
        depth = 0

        def format(self, entry: logging.LogRecord) -> str:
            with pipe.handler._changed:
                if not self.depth:
                    self.depth = 1
                    pipe.logger.info("inner")
            return super().format(entry)

    pipe.handler.setFormatter(Logging())
    pipe.logger.info("outer")
    assert pipe.read_all() == ["inner", "outer"]


def test_without_another_thread_it_writes_by_itself(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    pipe.logger.info("first")
    pipe.logger.info("second")
    assert pipe.read_some() == "first\nsecond\n"


def run_program(text: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    setup = """
        import logging, os, signal, sys, threading, time
        from wsframework.cli.logs import LogFormat, LogLevel, set_up_logging
        set_up_logging(LogLevel.INFO, LogFormat.JSON)
        log = logging.getLogger("test")
    """
    program = textwrap.dedent(setup) + textwrap.dedent(text)
    return subprocess.Popen([sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE)


def messages(output: bytes) -> list[str]:
    return [json.loads(line).get("message", "") for line in output.splitlines()]


@pytest.mark.parametrize("end", ["", "sys.exit(1)", "raise SystemExit"], ids=["end", "exit", "raise"])
def test_nothing_is_lost_at_the_end_of_the_program(end: str) -> None:
    process = run_program(f"for n in range(2000): log.info('%d', n)\n{end}")
    _, errors = process.communicate(timeout=60)
    assert messages(errors) == [str(number) for number in range(2000)]


def test_an_error_survives_the_processs_death() -> None:
    process = run_program("log.info('a'); log.error('b'); os.kill(os.getpid(), signal.SIGKILL)")
    _, errors = process.communicate(timeout=60)
    assert messages(errors) == ["a", "b"]


def test_a_program_ends_though_its_stderr_is_not_read() -> None:
    process = run_program("for n in range(20_000): log.info('x' * 500)")
    try:
        process.wait(60)  # its pipe is full all the time
    finally:
        process.kill()
        process.communicate()


FORK = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads; since Python 3.12
    log.info("before")
    {fill}
    child = os.fork()
    log.error("in %s", "parent" if child else "child")
    if not child:
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_forked_child_logs_and_repeats_nothing() -> None:
    process = run_program(FORK.format(fill=""), stdout=subprocess.PIPE)
    out, errors = process.communicate(timeout=60)
    assert out == b"0\n"
    assert sorted(messages(errors)) == ["before", "in child", "in parent"]


def test_a_forked_child_is_not_held_up_by_a_reader_that_sleeps() -> None:
    fill = "for n in range(20_000): log.info('x' * 500)"
    process = run_program(FORK.format(fill=fill), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.read(2) == b"0\n"
    finally:
        process.kill()
        process.communicate()
