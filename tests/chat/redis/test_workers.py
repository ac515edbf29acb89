"""Workers of a chat that are killed, stopped and restarted, in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.chat.people import Person
from tests.chat.redis.talking import Talker, check
from tests.chat.serving import Peer, shake_hands
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from tests.workers.processes import Crew, crew, needs_proc

pytestmark = [needs_proc, pytest.mark.slow]

_PEOPLE = 24

APP = """\
import os
from wsframework import App, Timeouts
from wsframework.chat import Chat, Rate
from wsframework.engines.redis import RedisEngine

app = App(timeouts=Timeouts(drain=2, lifespan=2))
engine = RedisEngine("{url}", prefix="{prefix}", lease=1.0)
app.install(engine)
app.install(Chat(engine=engine, rate=Rate(per_second=1e6, burst=10**6)))

@app.http("/pid")
async def pid(request):
    return str(os.getpid())
"""


async def come(found: Crew) -> Peer:
    stream = await trio.open_tcp_stream("127.0.0.1", int(found.url.rpartition(":")[2]))
    try:
        return await shake_hands(stream, "/ws/chat", host="localhost", subprotocol="superchat")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


@asynccontextmanager
async def person(found: Crew, name: str) -> AsyncIterator[Person]:
    """Be in the lobby; a worker that does not answer is given up for another one."""
    peer = None
    while peer is None:
        with trio.move_on_after(1):
            peer = await come(found)
    try:
        found_person = Person(peer)
        assert (await found_person.ask("hello", version=1, name=name))["type"] == "welcome"
        await found_person.ask("join", room="lobby")
        yield found_person
    finally:
        await trio.aclose_forcefully(peer.stream)


@pytest.mark.parametrize("how", ["kill", "roll"])
def test_workers_that_are_killed_or_restarted_cost_no_message(
    tmp_path: Path, redis: RedisServer, how: str
) -> None:
    async def main() -> None:
        talkers = [Talker(f"t{number}", lambda: come(found)) for number in range(6)]
        stop = trio.Event()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for talker in talkers:
                    nursery.start_soon(talker.run, stop)
                await until(lambda: all(len(talker.acknowledged) > 5 for talker in talkers))
                if how == "kill":
                    os.kill(found.pids()[0], signal.SIGKILL)
                    await trio.to_thread.run_sync(found.wait_for, "worker.ready", 3)
                else:
                    found.signal(signal.SIGHUP)
                    await trio.to_thread.run_sync(found.wait_for, "worker.ready", 4)
                counts = {talker: len(talker.acknowledged) for talker in talkers}
                await until(lambda: all(len(each.acknowledged) > count + 5 for each, count in counts.items()))
                stop.set()
            assert [talker.anew for talker in talkers] == [0] * 6
            async with person(found, "late") as late:
                await check(talkers, late)

    with crew(tmp_path, 2, text=APP.format(url=redis.url, prefix=f"worker-{how}")) as found:
        trio.run(main)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_names_of_a_worker_that_is_gone_are_free_after_the_lease(
    tmp_path: Path, redis: RedisServer, number: signal.Signals
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            stack.enter_context(trio.fail_after(60))
            # More than one worker accepts before the other one does.
            people = [await stack.enter_async_context(person(found, f"person {n}")) for n in range(_PEOPLE)]
            pid = found.pids()[0]
            os.kill(pid, number)
            stranger = await stack.enter_async_context(person(found, "stranger"))
            here = {"stranger", *(f"person {n}" for n in range(_PEOPLE))}
            # After the lease, those of this worker have left.
            while len(here) == _PEOPLE + 1:
                await trio.sleep(0.5)
                here = {*(await stranger.ask("people", room="lobby"))["people"]}
            name = min({f"person {n}" for n in range(_PEOPLE)} - here)
            assert (await stranger.ask("name", name=name))["type"] == "named"
            # The one who had the name comes back to nothing, if its worker does.
            if number == signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)
                lost = people[int(name.split()[1])]
                await lost.peer.read_to_end()
                assert lost.peer.closed is not None
                assert lost.peer.closed.code == 1013
            assert (await stranger.ask("say", room="lobby", text="it is me now"))["type"] == "said"

    with crew(tmp_path, 2, text=APP.format(url=redis.url, prefix=f"gone-{number}")) as found:
        trio.run(main)
