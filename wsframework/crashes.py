"""What an uncaught exception is about: one connection, the whole program, or a cancelled scope."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from opcode import opmap
from types import TracebackType
from typing import TypeGuard, TypeVar

import trio

__all__ = [
    "causes_of",
    "forget_earlier_frames",
    "forget_frames",
    "hint_for",
    "hint_in",
    "interrupt_in",
    "is_a",
    "is_of_the_code",
    "leaves",
    "need_stack",
    "split",
    "split_cancelled",
    "unwrap_group",
]

ErrorT = TypeVar("ErrorT", bound=BaseException)

_RAISE = opmap["RAISE_VARARGS"]

_MOST_HELD = 1000
"""How many exceptions of one crash are looked at: a retry in a loop may chain any number of them."""

# A user's class may have attributes of these names, which raise or never end.
_exceptions_of = vars(BaseExceptionGroup)["exceptions"].__get__
_traceback_of = vars(BaseException)["__traceback__"].__get__
_cause_of = vars(BaseException)["__cause__"].__get__
_context_of = vars(BaseException)["__context__"].__get__
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


def is_of_the_code(error: BaseException) -> bool:
    """Whether an exception is a mistake of the code that raised it: no KeyboardInterrupt, no cancellation."""
    return not any(is_a(leaf, KeyboardInterrupt) or is_a(leaf, trio.Cancelled) for leaf in leaves(error))


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


_ASYNCIO_ERRORS = (
    "no running event loop",
    "There is no current event loop",
    "received unrecognized yield message",  # Trio's, of a future that it was given to wait for
    "used inside a task",  # asyncio.timeout's and aiohttp's
)


def hint_for(error: BaseException) -> str | None:
    """Return what to do about an exception that shows that a library needs another event loop."""
    for leaf in leaves(error):
        if is_a(leaf, RuntimeError) or is_a(leaf, TypeError):
            try:
                text = str(leaf)
            except Exception:  # a user's class
                continue
            if (hint := hint_in(text)) is not None:
                return hint
    return None


def hint_in(text: str) -> str | None:
    """Return what `hint_for` does, for an exception of which there is only the text."""
    if not any(known in text for known in _ASYNCIO_ERRORS):
        return None
    return (
        "this needs asyncio, and runs on Trio: serve the App in an asyncio program, by "
        "wsframework.asyncio.serve; there mounted applications run in asyncio, and a handler awaits "
        "wsframework.asyncio.from_trio(function, …)"
    )


_STACK_CALLS = 32
"""Nested calls for which `need_stack` looks: ending a connection takes about twenty."""


def need_stack(calls: int = _STACK_CALLS) -> None:
    """Raise RecursionError now if there is no room for so many nested calls on Python's stack.

    Code that has used it up may catch the exception and call us from there. What must not be left half done
    begins with this.
    """
    if calls:
        need_stack(calls - 1)


def forget_frames(error: BaseException) -> None:
    """Drop the traceback of an exception that is an answer, and will not be shown.

    One object may be raised for every client: `DENIED = Reject(403)`, at the top of a module. Its traceback
    would grow, and keep the frames of all those calls, with the requests in them.
    """
    BaseException.with_traceback(error, None)  # a user's class may have its own


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception holds, such as its causes and contexts and theirs; not all of very many."""
    return islice(_held_by(error), _MOST_HELD)


def forget_earlier_frames(error: BaseException) -> None:
    """Cut off the parts of tracebacks that are left of earlier times at which the same objects were raised.

    They would grow with each of them, and each log record of them would take longer. To be called where the
    exception was caught: the traceback begins with the caller's frame, and an earlier one with another frame
    of the same function. What the exception holds (the exceptions of a group, its causes) was caught
    elsewhere, by the user's code or by Trio at the end of a child task, and its traceback begins with a frame
    of that code. There another frame of the same function may be a recursion; it is of an earlier time if it
    follows a `raise`, and not a call.
    """
    _cut_earlier(error, behind_raise=False)
    for held in causes_of(error):
        _cut_earlier(held, behind_raise=True)


def _cut_earlier(error: BaseException, *, behind_raise: bool) -> None:
    entry: TracebackType | None = _traceback_of(error)
    own = None if entry is None else entry.tb_frame
    while own is not None and entry is not None and entry.tb_next is not None:
        frame = entry.tb_next.tb_frame
        if frame.f_code is own.f_code and frame is not own and (not behind_raise or _is_raise(entry)):
            entry.tb_next = None
        entry = entry.tb_next


def _is_raise(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_code[entry.tb_lasti] == _RAISE


def _held_by(error: BaseException) -> Iterator[BaseException]:
    """Yield what a group holds, and the causes and contexts of all, each once."""
    left, seen = [error], {id(error)}
    while left:
        first = left.pop()
        inner = _exceptions_of(first) if is_a(first, BaseExceptionGroup) else ()
        for held in (*inner, _cause_of(first), _context_of(first)):
            if held is not None and id(held) not in seen:
                seen.add(id(held))
                left.append(held)
                yield held
