from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest
import trio

from wsframework.crashes import (
    forget_earlier_frames,
    hint_for,
    interrupt_in,
    is_a,
    is_of_the_code,
    leaves,
    need_stack,
    split,
    split_cancelled,
    unwrap_group,
)

INTERRUPT = KeyboardInterrupt()
traceback_of = vars(BaseException)["__traceback__"].__get__


class Cunning(Exception):
    __traceback__ = property(lambda self: 1 / 0)


DEEP: BaseException = ValueError(1)
for _ in range(5000):
    DEEP = BaseExceptionGroup("g", [DEEP])


def test_the_leaves_of_a_group_come_in_order() -> None:
    one, two, three = ValueError(1), ValueError(2), ValueError(3)
    assert list(leaves(one)) == [one]
    assert list(leaves(ExceptionGroup("g", [one, ExceptionGroup("h", [two]), three]))) == [one, two, three]


async def test_cancellation_and_keyboard_interrupt_are_no_mistakes_of_the_code_that_raises_them() -> None:
    assert is_of_the_code(SystemExit())
    assert is_of_the_code(BaseExceptionGroup("g", [GeneratorExit(), ValueError()]))
    assert not is_of_the_code(KeyboardInterrupt())
    assert not is_of_the_code(BaseExceptionGroup("g", [ValueError(), KeyboardInterrupt()]))
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as cancelled:
            await trio.lowlevel.checkpoint()
    assert not is_of_the_code(cancelled.value)


def test_groups_may_be_nested_deeper_than_the_stack() -> None:
    assert len(list(leaves(DEEP))) == 1
    assert interrupt_in(DEEP) is None
    assert split(DEEP, KeyboardInterrupt) == (None, DEEP)


def test_a_deep_group_of_two_kinds_is_split_all_the_same() -> None:
    error = ValueError(2)
    deep: BaseException = INTERRUPT
    for _ in range(5000):
        deep = BaseExceptionGroup("g", [deep])
    first, second = split(BaseExceptionGroup("both", [deep, error]), KeyboardInterrupt)
    assert first is not None
    assert second is not None
    assert [list(leaves(first)), list(leaves(second))] == [[INTERRUPT], [error]]


class Liar(ValueError):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


def test_an_exception_is_not_asked_what_it_is() -> None:
    liar = Liar()
    assert is_a(liar, ValueError)
    assert not is_a(liar, KeyboardInterrupt)
    assert interrupt_in(liar) is None
    assert unwrap_group(liar) is liar
    assert split(liar, KeyboardInterrupt) == (None, liar)
    assert interrupt_in(BaseExceptionGroup("g", [liar, INTERRUPT])) is INTERRUPT


class OwnAttributes(BaseExceptionGroup):
    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        return (self,)

    @property
    def message(self) -> str:
        raise SystemExit

    def split(self, *_: object) -> object:  # type: ignore[override]
        raise SystemExit

    derive = split  # type: ignore[assignment]


def test_a_group_is_not_asked_what_it_holds() -> None:
    one = ValueError(1)
    both = OwnAttributes("g", [one, INTERRUPT])
    assert list(leaves(both)) == [one, INTERRUPT]
    assert unwrap_group(both) is both
    assert unwrap_group(OwnAttributes("g", [one])) is one
    interrupts, others = split(both, KeyboardInterrupt)
    assert interrupts is not None
    assert others is not None
    assert [list(leaves(interrupts)), list(leaves(others))] == [[INTERRUPT], [one]]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (None, None),
        (ValueError(), None),
        (INTERRUPT, INTERRUPT),
        (BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [INTERRUPT])]), INTERRUPT),
    ],
    ids=["nothing", "an error", "itself", "in a group"],
)
def test_an_interrupt_is_found_wherever_it_is(
    error: BaseException | None, found: KeyboardInterrupt | None
) -> None:
    assert interrupt_in(error) is found


async def test_cancellation_is_split_from_the_rest() -> None:
    error = ValueError()
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.sleep_forever()
    cancelled = caught.value
    assert split_cancelled(cancelled) == (cancelled, None)
    assert split_cancelled(error) == (None, error)
    both = BaseExceptionGroup[BaseException]("g", [cancelled, error])
    first, second = split_cancelled(both)
    assert first is not None
    assert second is not None
    assert [*leaves(first), *leaves(second)] == [cancelled, error]


def test_unwrap_group_takes_a_lone_exception_out_of_all_its_groups() -> None:
    inner = ValueError("x")
    assert unwrap_group(inner) is inner
    assert unwrap_group(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner
    two = ExceptionGroup("two", [inner, KeyError("y")])
    assert unwrap_group(two) is two
    assert unwrap_group(ExceptionGroup("around", [two])) is two


@pytest.mark.parametrize("kind", [LookupError, Cunning])
def test_an_object_that_is_raised_again_has_the_traceback_of_the_last_time(kind: type[Exception]) -> None:
    error = kind("one object")

    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise error

    def names(depth: int) -> list[str]:
        try:
            fail(depth)
        except Exception as caught:
            forget_earlier_frames(caught)
        return [name.f_code.co_name for name, _ in traceback.walk_tb(traceback_of(error))]

    for depth in (3, 0, 2):
        assert names(depth) == ["names", *["fail"] * (depth + 1)]
    forget_earlier_frames(kind("never raised"))


def test_what_a_crash_holds_has_the_traceback_of_the_last_time() -> None:
    error = KeyError("one object")

    def fail() -> None:
        raise error

    def first(depth: int) -> None:
        if depth:
            first(depth - 1)
        fail()

    def caught(depth: int) -> Exception:
        try:
            first(depth)
        except KeyError as caught:
            return caught
        raise AssertionError

    def as_cause(depth: int) -> None:
        raise ValueError("caused") from caught(depth)

    def in_a_group(depth: int) -> None:
        raise ExceptionGroup("held", [ExceptionGroup("deeper", [caught(depth)])])

    def as_context(depth: int) -> None:
        try:
            first(depth)
        except KeyError:
            raise ValueError("while another was handled")  # noqa: B904

    def names(crash: Callable[[int], None], depth: int) -> list[str]:
        try:
            crash(depth)
        except Exception as found:
            forget_earlier_frames(found)
        return [name.f_code.co_name for name, _ in traceback.walk_tb(traceback_of(error))]

    for crash in (as_cause, in_a_group, as_context):
        error = KeyError("one object")
        outer = "as_context" if crash is as_context else "caught"
        for depth in (3, 0, 2):
            assert names(crash, depth) == [outer, *["first"] * (depth + 1), "fail"]


def test_exceptions_that_hold_each_other_are_looked_at_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    forget_earlier_frames(ExceptionGroup("both", [first, second]))


def test_room_on_the_stack_is_needed_before_anything_happens() -> None:
    need_stack()

    def descend() -> int:
        try:
            return descend()
        except RecursionError:
            with pytest.raises(RecursionError):
                need_stack()
            return 1

    assert descend() == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no running event loop"),
        RuntimeError("There is no current event loop in thread 'MainThread'."),
        RuntimeError("Timeout context manager should be used inside a task"),
        ExceptionGroup("", [ValueError(), RuntimeError("no running event loop")]),
    ],
)
def test_an_asyncio_library_on_trio_gets_a_hint(error: Exception) -> None:
    assert "wsframework.asyncio.serve" in str(hint_for(error))


async def test_a_future_that_trio_is_to_wait_for_gets_a_hint() -> None:
    class Future:
        def __await__(self) -> Iterator[object]:
            yield self

    with pytest.raises(TypeError) as raised:
        await Future()  # type: ignore[misc]
    assert "from_trio" in str(hint_for(raised.value))


def test_other_errors_get_no_hint_whatever_their_text_does() -> None:
    class Broken(RuntimeError):
        def __str__(self) -> str:
            raise ValueError

    for error in (RuntimeError("no"), Broken(), ValueError("no running event loop"), SystemExit()):
        assert hint_for(error) is None
