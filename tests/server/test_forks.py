from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, os, sys
import trio
from wsframework.server.forks import serving_here

how = sys.argv[1]

async def fork():
    if os.fork() == 0:
        if how == "exec":
            os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(9)"])
        if how == "leave":
            os._exit(9)
        if how == "raise":
            raise ValueError
        if how == "wait":
            await trio.lowlevel.checkpoint()
        return

async def task():
    with contextlib.suppress(ValueError):
        await fork()
    await trio.lowlevel.checkpoint()
    if os.getpid() != parent:
        os._exit(7)  # another step of the loop

async def main():
    around = contextlib.nullcontext() if how == "no server" else serving_here()
    with around, contextlib.nullcontext() if how == "no server" else serving_here():
        if how == "after":
            pass
        else:
            await task()
    if how == "after":
        await task()
    print(os.waitstatus_to_exitcode(os.wait()[1]))

parent = os.getpid()
trio.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("how", "status"),
    [("return", 1), ("raise", 1), ("wait", 1), ("exec", 9), ("leave", 9), ("no server", 7), ("after", 7)],
)
def test_a_child_ends_with_the_step_in_which_it_was_forked(how: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == str(status), done.stderr
    assert ("came back to the event loop" in done.stderr) == (status == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("stderr", ["closed", "a broken pipe", "a full pipe"])
def test_a_child_ends_though_nothing_can_be_written_to_stderr(stderr: str) -> None:
    reader, writer = os.pipe()
    if stderr == "a full pipe":
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
    else:
        os.close(reader)
    command = [sys.executable, "-c", PROGRAM, "return"]
    if stderr == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=30)
    finally:
        os.close(writer)
        if stderr == "a full pipe":
            os.close(reader)
    assert done.stdout.strip() == "1"
