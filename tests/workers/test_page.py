"""What workers tell each other and their parent through shared memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import attrs
import pytest

from wsframework.engines.running import EngineFigures
from wsframework.server.crowd import Figures, Phase
from wsframework.workers.page import FRESH_SECONDS, Page, Slot


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.create(4)
    yield page
    page.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def serving(page: Page, clock: Clock, *connections: int) -> list[Slot]:
    """Return workers that serve so many connections each."""
    slots = [Page.attach(page.fd, number, clock) for number in range(len(connections))]
    for slot, number in zip(slots, connections, strict=True):
        slot.enter(Phase.SERVING)
        slot.beat(Figures())
        slot.tell(number)
    return slots


def test_a_new_page_is_empty(page: Page) -> None:
    for slot in range(page.slots):
        read = page.read(slot)
        assert (read.phase, read.heartbeat, read.connections, read.pid) == (Phase.ABSENT, 0, 0, 0)
        assert read.counted == Figures()


def test_what_a_program_writes_into_the_page_by_mistake_harms_no_other(page: Page) -> None:
    with mmap.mmap(page.fd, 0) as memory:
        memory[64:] = b"\xff" * (len(memory) - 64)
    assert page.read(0).phase == Phase.ABSENT


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no seals")
def test_no_process_can_make_the_page_smaller_under_the_others(page: Page) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, 0)


def test_the_parent_reads_what_a_worker_writes(page: Page, clock: Clock) -> None:
    slot = Page.attach(page.fd, 2, clock)
    assert page.read(2).phase == Phase.STARTING
    assert page.read(2).pid == os.getpid()
    figures = Figures(
        websockets=1, accepted=2, refused=3, messages_received=4, messages_sent=2**40, loop_lag=0.25
    )
    slot.enter(Phase.SERVING)
    slot.tell(7)
    slot.beat(figures)
    read = page.read(2)
    assert (read.phase, read.heartbeat, read.connections) == (Phase.SERVING, 1000.0, 7)
    assert read.counted == figures
    assert [page.read(other).phase for other in (0, 1, 3)] == [Phase.ABSENT] * 3


def test_the_parent_reads_the_figures_of_engines(page: Page) -> None:
    slot = Page.attach(page.fd, 2)
    assert page.read(2).engines is None
    figures = EngineFigures(
        up=True,
        generation=1,
        queued=2,
        queued_seconds=0.5,
        lag_seconds=0.25,
        lost=3,
        replayed=2**40,
        gaps={"epoch": 4, "regressed": 5, "forked": 6, "trimmed": 7},
    )
    slot.tell_engines(figures)
    assert page.read(2).engines == figures
    assert [page.read(other).engines for other in (1, 3)] == [None, None]
    slot.tell_engines(attrs.evolve(figures, up=False))
    assert page.read(2).engines == attrs.evolve(figures, up=False)
    slot.tell_engines(None)
    assert page.read(2).engines is None


def test_a_heartbeat_is_monotonic_time(page: Page) -> None:
    before = time.monotonic()
    Page.attach(page.fd, 0).beat(Figures())
    assert before <= page.read(0).heartbeat <= time.monotonic()


def test_a_slot_that_is_cleared_is_free(page: Page, clock: Clock) -> None:
    one, _ = serving(page, clock, 5, 3)
    page.clear(1)
    assert page.read(1).phase == Phase.ABSENT
    assert (one.fewest(), one.others()) == (None, 0)
    assert page.read(0).connections == 5


def test_a_worker_sees_the_least_of_the_others_and_their_sum(page: Page, clock: Clock) -> None:
    one, two, three = serving(page, clock, 5, 3, 9)
    assert [slot.fewest() for slot in (one, two, three)] == [3, 5, 3]
    assert [slot.others() for slot in (one, two, three)] == [12, 14, 8]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase != Phase.SERVING])
def test_a_worker_that_cannot_accept_is_not_waited_for(page: Page, clock: Clock, phase: Phase) -> None:
    one, two, three = serving(page, clock, 5, 3, 9)
    two.enter(phase)
    assert (one.fewest(), three.fewest(), two.fewest()) == (9, 5, 5)
    # Its connections are there all the same.
    assert one.others() == 12


def test_a_worker_that_does_not_run_is_not_waited_for(page: Page, clock: Clock) -> None:
    one, two = serving(page, clock, 5, 3)
    clock.now += FRESH_SECONDS
    one.beat(Figures())
    assert one.fewest() == 3
    clock.now += 0.001
    assert (one.fewest(), two.fewest()) == (None, 5)
    assert one.others() == 3
    two.beat(Figures())
    assert one.fewest() == 3


def test_a_worker_alone_has_no_others(page: Page, clock: Clock) -> None:
    (one,) = serving(page, clock, 5)
    assert (one.fewest(), one.others()) == (None, 0)


@pytest.mark.parametrize("phase", Phase)
def test_a_worker_is_alone_while_no_other_serves(page: Page, clock: Clock, phase: Phase) -> None:
    one, two = serving(page, clock, 5, 3)
    two.enter(phase)
    clock.now += 100  # it is there, though it may be busy
    assert one.is_alone() is (phase not in (Phase.SERVING, Phase.FULL))
    assert not two.is_alone()


def test_another_process_writes_to_the_inherited_page(page: Page) -> None:
    program = (
        "import sys; from wsframework.server.crowd import Figures, Phase;"
        "from wsframework.workers.page import Page;"
        "slot = Page.attach(int(sys.argv[1]), 3); slot.enter(Phase.SERVING); slot.tell(12);"
        "slot.beat(Figures(accepted=99))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(page.fd)], pass_fds=[page.fd])
    assert process.wait() == 0
    read = page.read(3)
    assert (read.phase, read.connections, read.counted.accepted) == (Phase.SERVING, 12, 99)
    assert read.pid == process.pid


@pytest.mark.parametrize("slot", [-1, 4])
def test_a_slot_that_is_not_there_is_an_error(page: Page, slot: int) -> None:
    for use in (page.read, page.clear, lambda number: Page.attach(page.fd, number)):
        with pytest.raises(ValueError, match=f"no slot {slot}"):
            use(slot)


def test_a_page_of_another_version_is_an_error() -> None:
    fd = os.memfd_create("other")
    os.write(fd, bytes(64))
    with pytest.raises(ValueError, match="another version of wsframework: restart the parent"):
        Page.attach(fd, 0)
    with pytest.raises(ValueError, match="another version"):
        Page(fd)
    os.close(fd)


def test_it_works_where_there_are_no_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    page = Page.create(2)
    Page.attach(page.fd, 1).tell(3)
    assert page.read(1).connections == 3
    page.close()
