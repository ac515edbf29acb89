"""A nursery that tests do not notice: no group of its making ever comes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from wsframework.crashes import interrupt_in, unwrap_group

__all__ = ["open_background"]


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that raises the exception of its block or of a task, without a group around it.

    Its tasks are cancelled when the block fails. A block that succeeds has to end them.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                failure = error
                nursery.cancel_scope.cancel(reason="the test's block has failed")
    except BaseExceptionGroup as group:
        if (interrupt := interrupt_in(group)) is not None:
            raise interrupt from None  # about all tests, and not a failure of this one
        if failure is None or isinstance(failure, trio.Cancelled):
            # A task failed, and the block was only cancelled because of it.
            raise unwrap_group(group) from None
        raise failure from group
    if failure is not None:
        raise failure
