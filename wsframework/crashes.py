"""What an uncaught exception is about: one connection, the whole program, or a cancelled scope."""

from __future__ import annotations

from collections.abc import Iterator

import trio

__all__ = ["interrupt_in", "leaves", "split", "split_cancelled"]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups in it, in order, or the exception itself."""
    # Without recursion: a user's groups may be nested deeper than Python's stack.
    left = [error]
    while left:
        first = left.pop()
        if isinstance(first, BaseExceptionGroup):
            left.extend(reversed(first.exceptions))
        else:
            yield first


def interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt that an exception is or holds, if any: it is about the whole program."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error
    return next((leaf for leaf in leaves(error) if isinstance(leaf, KeyboardInterrupt)), None)


def split(
    error: BaseException, kind: type[BaseException]
) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception, or a group, into what is of a kind and what is not."""
    # Asked first, because Python splits a group by recursion, and hardly any is of two kinds.
    if not any(isinstance(leaf, kind) for leaf in leaves(error)):
        return None, error
    return error.split(kind) if isinstance(error, BaseExceptionGroup) else (error, None)


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception, or a group, into cancellation, which must go on to its scope, and everything
    else."""
    return split(error, trio.Cancelled)
