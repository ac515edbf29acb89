from __future__ import annotations

import pytest
import trio
import trio.testing

from wsframework.server.lifetime import Lifetime


def new_lifetime() -> tuple[Lifetime, list[BaseException]]:
    failures: list[BaseException] = []
    return Lifetime(failures.append), failures


async def test_a_second_stop_cuts_the_drain_short_and_the_first_does_not() -> None:
    lifetime, _ = new_lifetime()
    short: list[bool] = []
    for _ in range(2):
        lifetime.stop()
        assert lifetime.stopping.is_set()
        short.append(lifetime.drain_limit.cancel_called)
    assert short == [False, True]
    assert lifetime.cause is None


@pytest.mark.parametrize(
    ("first", "second", "code"), [(True, False, 1012), (False, True, 1001), (True, True, 1012)]
)
async def test_the_first_stop_decides_what_clients_are_told(first: bool, second: bool, code: int) -> None:
    lifetime, _ = new_lifetime()
    lifetime.stop(restarting=first)
    lifetime.stop(restarting=second)
    assert lifetime.close_frame.code == code


async def test_an_interrupt_stops_and_is_the_cause_and_its_repetition_cuts_nothing_short() -> None:
    lifetime, failures = new_lifetime()
    first = KeyboardInterrupt()
    for interrupt in (first, KeyboardInterrupt(), first):
        lifetime.interrupt(interrupt)
    assert lifetime.stopping.is_set()
    assert not lifetime.drain_limit.cancel_called
    assert lifetime.cause is first
    assert failures == []


async def test_a_failure_ends_the_drain_and_is_told_once() -> None:
    lifetime, failures = new_lifetime()
    lifetime.interrupt(KeyboardInterrupt())
    first = ValueError("a mistake of ours")
    lifetime.fail(first)
    lifetime.fail(TypeError("and what came of it"))
    assert lifetime.stopping.is_set()
    assert lifetime.drain_limit.cancel_called
    assert failures == [first]
    assert lifetime.cause is first


async def test_an_interrupt_in_a_group_is_no_failure_but_what_raised_it_is_gone() -> None:
    lifetime, failures = new_lifetime()
    interrupt = KeyboardInterrupt()
    lifetime.fail(BaseExceptionGroup("of a nursery", [interrupt]))
    assert failures == []
    assert lifetime.cause is interrupt
    assert lifetime.drain_limit.cancel_called


async def test_what_a_vital_part_raises_fails_the_server_and_cancellation_is_passed_on() -> None:
    lifetime, failures = new_lifetime()
    mistake = ValueError("a mistake of ours")

    async def part() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise mistake

    with trio.CancelScope() as scope:
        scope.cancel()
        await lifetime.run_vital(part)
    assert failures == [mistake]

    with trio.CancelScope() as scope:
        scope.cancel()
        await lifetime.run_vital(trio.sleep_forever)
    assert scope.cancelled_caught
    assert failures == [mistake]


async def test_ctrl_c_in_the_main_task_stops_and_the_wait_goes_on() -> None:
    lifetime, _ = new_lifetime()
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]
    short: list[bool] = []

    async def wait() -> None:
        short.append(lifetime.drain_limit.cancel_called)
        if len(short) <= len(interrupts):
            raise interrupts[len(short) - 1]

    await lifetime.outlast_interrupts(wait)
    # A person who presses it twice does not want to wait for the drain.
    assert short == [False, False, True]
    assert lifetime.cause is interrupts[0]


async def test_other_exceptions_come_out_of_a_wait() -> None:
    lifetime, _ = new_lifetime()

    async def wait() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await lifetime.outlast_interrupts(wait)
