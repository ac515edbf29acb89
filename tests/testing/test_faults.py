"""Each fault does what it says, alone and inside another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from wsframework.testing import (
    Gate,
    HalfOpen,
    NeverReadable,
    NeverWritable,
    ResetAfter,
    StreamWrapper,
    TornReads,
    memory_pair,
    reset_stream,
)


async def would_wait(call: Callable[[], object]) -> bool:
    with trio.move_on_after(1) as limit:
        await call()  # type: ignore[misc]
    return limit.cancelled_caught


def torn(stream: trio.abc.Stream) -> TornReads:
    return TornReads(stream, [1, 5000])


@pytest.mark.parametrize("wrap", [StreamWrapper, Gate, HalfOpen, ResetAfter, torn])
async def test_without_a_fault_a_wrapper_keeps_trios_rules_for_streams(
    wrap: Callable[[trio.abc.Stream], trio.abc.HalfCloseableStream],
) -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        one, other = memory_pair()
        return wrap(one), wrap(other)

    await trio.testing.check_half_closeable_stream(make, None)


async def test_never_readable_waits_whatever_comes(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    silent = NeverReadable(one)
    await other.send_all(b"hello")
    assert await would_wait(silent.receive_some)
    await silent.send_all(b"but it writes")
    assert await other.receive_some() == b"but it writes"


async def test_never_readable_may_begin_after_some_bytes(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    silent = NeverReadable(one, after_bytes=3)
    await other.send_all(b"hello")
    assert await silent.receive_some() == b"hel"
    assert await would_wait(silent.receive_some)


async def test_never_readable_hides_the_end_too(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    silent = NeverReadable(one)
    await other.aclose()
    assert await would_wait(silent.receive_some)


async def test_never_writable_takes_so_many_bytes_and_then_waits(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    stuck = NeverWritable(one, after_bytes=3)
    assert await would_wait(lambda: stuck.send_all(b"hello"))
    assert await would_wait(stuck.wait_send_all_might_not_block)
    assert await other.receive_some() == b"hel"
    await other.send_all(b"it reads")
    assert await stuck.receive_some() == b"it reads"


async def test_a_gate_that_is_released_delivers_everything_in_order() -> None:
    one, other = memory_pair()
    gate = Gate(one)
    got: list[bytes] = []

    async def read() -> None:
        while data := await gate.receive_some():
            got.append(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        gate.hold_reads()
        gate.hold_writes()
        nursery.start_soon(gate.send_all, b"out")
        await other.send_all(b"in")
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        gate.release()
        assert await other.receive_some() == b"out"
        await other.send_eof()
    assert b"".join(got) == b"in"


async def test_a_read_that_is_cancelled_behind_a_gate_loses_nothing(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    gate = Gate(one)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(would_wait, gate.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        gate.hold_reads()
        await other.send_all(b"kept")
    gate.release()
    assert await gate.receive_some(2) == b"ke"
    assert await gate.receive_some() == b"pt"


@pytest.mark.parametrize("direction", ["reads", "writes"])
async def test_closing_wakes_whoever_waits_at_a_gate(direction: str) -> None:
    one, _ = memory_pair()
    gate = Gate(one, reads=0, writes=0)
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await (gate.receive_some() if direction == "reads" else gate.send_all(b"x"))

        nursery.start_soon(use)
        await trio.testing.wait_all_tasks_blocked()
        await gate.aclose()


async def test_torn_reads_come_in_the_sizes_asked_for() -> None:
    one, other = memory_pair()
    await other.send_all(b"abcdefgh")
    torn = TornReads(one, [1, 3])
    assert [await torn.receive_some() for _ in range(4)] == [b"a", b"bcd", b"e", b"fgh"]
    await other.send_all(b"xyz")
    assert await TornReads(one, 2).receive_some(1) == b"x"


@pytest.mark.parametrize("size", [0, [], [1, 0]])
def test_a_piece_has_at_least_one_byte(size: int | list[int]) -> None:
    with pytest.raises(ValueError, match="pieces"):
        TornReads(memory_pair()[0], size)


async def test_half_open_is_silence_in_both_directions(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    gone = HalfOpen(one)
    await gone.send_all(b"before")
    gone.vanish()
    assert gone.gone
    await gone.send_all(b"after")
    await gone.wait_send_all_might_not_block()
    await gone.send_eof()
    await other.send_all(b"unheard")
    assert await would_wait(gone.receive_some)
    await gone.aclose()
    assert await other.receive_some() == b"before"
    assert await would_wait(other.receive_some)
    with pytest.raises(trio.ClosedResourceError):
        await gone.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await gone.send_all(b"x")


async def test_half_open_takes_a_reader_along_that_waits_already(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    gone = HalfOpen(one)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await would_wait(gone.receive_some)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        gone.vanish()
        await other.send_all(b"unheard")


async def test_reset_after_bytes_sent() -> None:
    one, other = memory_pair()
    fragile = ResetAfter(one, sent=4)
    await fragile.send_all(b"abc")
    assert await other.receive_some() == b"abc"
    with pytest.raises(trio.BrokenResourceError):
        await fragile.send_all(b"def")
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()


async def test_reset_after_bytes_received() -> None:
    one, other = memory_pair()
    fragile = ResetAfter(one, received=4)
    await other.send_all(b"abcdef")
    assert await fragile.receive_some(3) == b"abc"
    assert await fragile.receive_some() == b"d"
    with pytest.raises(trio.BrokenResourceError):
        await fragile.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()


async def test_faults_compose(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair()
    stream = NeverReadable(TornReads(ResetAfter(one, received=9), 2), after_bytes=5)
    await other.send_all(b"abcdef")
    assert b"".join([await stream.receive_some() for _ in range(3)]) == b"abcde"
    assert await would_wait(stream.receive_some)


async def test_a_real_socket_is_reset_with_a_rst() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        async with await listener.accept() as accepted:
            await reset_stream(Gate(stream))
            with pytest.raises(trio.BrokenResourceError) as caught:
                await accepted.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_stream_without_half_close_is_wrapped_all_the_same() -> None:
    class Whole(trio.abc.Stream):
        closed = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

        async def wait_send_all_might_not_block(self) -> None: ...

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None:
            self.closed = True

    whole = Whole()
    await StreamWrapper(whole).send_eof()
    assert not whole.closed
    await reset_stream(StreamWrapper(whole))
    assert whole.closed
