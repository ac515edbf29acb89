"""What an uncaught exception is about: one connection, the whole program, or a cancelled scope."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TypeGuard, TypeVar

import trio

__all__ = [
    "forget_earlier_frames",
    "forget_frames",
    "interrupt_in",
    "is_a",
    "leaves",
    "split",
    "split_cancelled",
    "unwrap_group",
]

ErrorT = TypeVar("ErrorT", bound=BaseException)

# A user's class may have attributes of these names, which raise or never end.
_exceptions_of = vars(BaseExceptionGroup)["exceptions"].__get__
_traceback_of = vars(BaseException)["__traceback__"].__get__
_message_of = vars(BaseExceptionGroup)["message"].__get__


def is_a(error: BaseException, kind: type[ErrorT]) -> TypeGuard[ErrorT]:
    """Whether an exception is of a kind.

    `isinstance` would ask the exception's `__class__` too, which a user may have written and which may raise.
    """
    return issubclass(type(error), kind)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups in it, in order, or the exception itself."""
    # Without recursion: a user's groups may be nested deeper than Python's stack.
    left = [error]
    while left:
        first = left.pop()
        if is_a(first, BaseExceptionGroup):
            left.extend(reversed(_exceptions_of(first)))
        else:
            yield first


def interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt that an exception is or holds, if any: it is about the whole program."""
    if error is None:
        return None
    return next((leaf for leaf in leaves(error) if is_a(leaf, KeyboardInterrupt)), None)


def split(
    error: BaseException, kind: type[BaseException]
) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception, or a group, into what is of a kind and what is not.

    The halves of a group have its shape; those of one that Python cannot split, because it is nested too deep
    or of a class that fails, are flat.
    """
    found = list(leaves(error))
    of_kind = [leaf for leaf in found if is_a(leaf, kind)]
    # Python splits a group by recursion, and hardly any is of two kinds.
    if not of_kind:
        return None, error
    if len(of_kind) == len(found):
        return error, None
    assert is_a(error, BaseExceptionGroup)
    try:
        return BaseExceptionGroup.split(error, kind)
    except BaseException:
        others = [leaf for leaf in found if not is_a(leaf, kind)]
        message = _message_of(error)
        return BaseExceptionGroup(message, of_kind), BaseExceptionGroup(message, others)


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception, or a group, into cancellation, which must go on to its scope, and everything
    else."""
    return split(error, trio.Cancelled)


def unwrap_group(error: BaseException) -> BaseException:
    """Take an exception out of groups that hold nothing else: groups that our nurseries created."""
    while is_a(error, BaseExceptionGroup) and len(inner := _exceptions_of(error)) == 1:
        error = inner[0]
    return error


def forget_frames(error: BaseException) -> None:
    """Drop the traceback of an exception that is an answer, and will not be shown.

    One object may be raised for every client: `DENIED = Reject(403)`, at the top of a module. Its traceback
    would grow, and keep the frames of all those calls, with the requests in them.
    """
    BaseException.with_traceback(error, None)  # a user's class may have its own


def forget_earlier_frames(error: BaseException) -> None:
    """Cut off the part of a traceback that is left of earlier times at which the same object was raised.

    It would grow with each of them, and each log record of it would take longer. To be called where the
    exception was caught: the traceback begins with the caller's frame, and an earlier one with another frame
    of the same function.
    """
    entry: TracebackType | None = _traceback_of(error)
    own = None if entry is None else entry.tb_frame
    while own is not None and entry is not None and entry.tb_next is not None:
        frame = entry.tb_next.tb_frame
        if frame.f_code is own.f_code and frame is not own:
            entry.tb_next = None
        entry = entry.tb_next
