from __future__ import annotations

import pytest
import trio

from wsframework.crashes import interrupt_in, leaves, split, split_cancelled

INTERRUPT = KeyboardInterrupt()
DEEP: BaseException = ValueError(1)
for _ in range(5000):
    DEEP = BaseExceptionGroup("g", [DEEP])


def test_the_leaves_of_a_group_come_in_order() -> None:
    one, two, three = ValueError(1), ValueError(2), ValueError(3)
    assert list(leaves(one)) == [one]
    assert list(leaves(ExceptionGroup("g", [one, ExceptionGroup("h", [two]), three]))) == [one, two, three]


def test_groups_may_be_nested_deeper_than_the_stack() -> None:
    assert len(list(leaves(DEEP))) == 1
    assert interrupt_in(DEEP) is None
    assert split(DEEP, KeyboardInterrupt) == (None, DEEP)


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
