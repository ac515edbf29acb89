"""Rounds of random handlers and clients against one host, and what must hold after each.

Theory of operation
-------------------
One server serves all rounds. An innocent echoes all the time, a quiet one only answers pings; both were
there before the first round. A round opens its clients all at once, each with a part of its own
(`playing.Part`), and waits until they are gone. Then the server must be as it was: its counters, its tasks,
its rooms, descriptors and memory, and it must serve a newcomer. What each client saw is judged against what
its handler did.

Everything is drawn from `seed round number`, so a client of a round can be had again without the others. In
memory, on a virtual clock and with Trio's scheduling seeded, a round happens the same way each time; on
sockets the kernel and the clock have their say.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable

import attrs
import trio
import trio.testing

from tests.contract.hosts import Host, Served
from tests.hostile.judging import judge
from tests.hostile.lives import Life, write_life
from tests.hostile.peers import Peer
from tests.hostile.playing import TIMEOUTS, Part, Play
from tests.hostile.programs import FAMILIES, Author
from tests.promises.rawclient import PING, PONG, TEXT, frame
from wsframework import Server
from wsframework.testing import MemoryServer

__all__ = ["Failure", "Plan", "run_rounds"]

CLIENTS = 24
SETTLE_SECONDS = 8.0
"""How long the server may take to be as it was: grace, close timeout and shields are over far sooner."""
ECHO_SECONDS = 5.0
"""An innocent's echo may take that long beside a stress on a busy machine; beyond, it is stuck."""

MISTAKES = frozenset({"connection.failed", "timer.failed", "hub.failed", "server.failed"})
CRASHES = frozenset({"handler.crashed", "guard.crashed"})
EXPECTED = frozenset(
    {"guard.timeout", "http.timeout", "connection.refused", "loop.blocked", "server.drain_timeout"}
)


class Failure(Exception):
    """A round after which something was not as it must be."""

    def __init__(self, round_number: int, wrongs: Iterable[str]) -> None:
        self.round_number = round_number
        self.wrongs = list(wrongs)
        super().__init__(f"round {round_number}: " + "\n  ".join(self.wrongs))


@attrs.frozen
class Plan:
    """What to run.

    Attributes:
        host: what serves.
        seed: what everything is drawn from.
        rounds: their numbers.
        families: the steps that programs may have.
        clients: the numbers of the clients of each round.
    """

    host: Host
    seed: str
    rounds: range
    families: frozenset[str] = frozenset(FAMILIES)
    clients: tuple[int, ...] = tuple(range(CLIENTS))

    def cast(self, round_number: int, client: int) -> tuple[Part, Life]:
        """What one client of a round and its handler are going to do."""
        chance = random.Random(f"{self.seed} {round_number} {client}")
        author = Author(chance, self.families, threads=not self.host.virtual_time)
        part = Part(
            number=round_number * 1000 + client,
            handler=author.handler(),
            guard=author.guard(),
            wrapper=author.wrapper(),
            page=author.page(),
        )
        return part, write_life(chance)


class Journal(logging.Handler):
    """What was logged from WARNING up, without the exceptions, which would keep what they came through."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.crashes: dict[str, list[str]] = {}
        self.wrongs: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", ""))
        fields = getattr(record, "fields", {})
        if event in CRASHES:
            number = str(fields.get("path", "")).rpartition("/")[2]
            self.crashes.setdefault(number, []).append(f"{event} {str(fields.get('error'))[:200]}")
        elif event not in EXPECTED and record.name != "trio.async_generator_errors":
            text = logging.Formatter().format(record)
            self.wrongs.append(
                f"logged by {record.name}: {text[:300]} … {text[-600:]}" if len(text) > 900 else text
            )


class Noise:
    """Warnings and exceptions that Python could raise nowhere: of ours there must be none."""

    def __init__(self) -> None:
        self.wrongs: list[str] = []

    def unraisable(self, found: sys.UnraisableHookArgs) -> None:
        self.wrongs.append(f"unraisable: {found.exc_value!r} in {found.object!r} {found.err_msg or ''}")

    def warned(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
    ) -> None:
        if "tests.hostile.playing" not in str(message):
            self.wrongs.append(f"{category.__name__}: {message} ({filename}:{lineno})")


def run_rounds(
    plan: Plan, report: Callable[[str], None], roots: list[trio.lowlevel.Task] | None = None
) -> None:
    """Run a plan in this process.

    Args:
        plan: what to run.
        report: called with a line after each round.
        roots: gets Trio's root task, for whoever wants to know where it hangs.

    Raises:
        Failure: the first round that failed.
        BaseException: what came out of the server.
    """
    journal, noise = Journal(), Noise()
    logging.getLogger().addHandler(journal)
    logging.getLogger("wsframework").setLevel(logging.WARNING)
    sys.unraisablehook = noise.unraisable
    warnings.simplefilter("always")
    warnings.showwarning = noise.warned  # type: ignore[assignment]
    clock = trio.testing.MockClock(autojump_threshold=0) if plan.host.virtual_time else None
    if plan.host.virtual_time:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    stress = Stress(plan, journal, noise, report)

    async def run() -> None:
        root = trio.lowlevel.current_root_task()
        if roots is not None and root is not None:
            roots.append(root)
        await stress.run()

    trio.run(run, clock=clock)


def _tasks() -> dict[str, int]:
    """How many tasks of each name there are; also those that no nursery knows any more.

    Without those that hold a nursery for user code: after a handler has corrupted one, the server opens the
    next, and the old one stays for the connections in it.
    """
    tasks = trio._core._run.GLOBAL_RUN_CONTEXT.runner.tasks
    return dict(Counter(task.name for task in tasks if not task.name.endswith("UserTasks._hold")))


class Stress:
    """A server, its innocents, and the rounds."""

    def __init__(self, plan: Plan, journal: Journal, noise: Noise, report: Callable[[str], None]) -> None:
        self._plan = plan
        self._journal = journal
        self._noise = noise
        self._report = report
        self._play = Play()
        self._slowest = 0.0
        self._pinged = 0

    async def run(self) -> None:
        play, plan = self._play, self._plan
        async with plan.host.serve(play.app) as served:
            innocents = [await self._open(served), await self._open(served)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._echo, innocents[0])
                nursery.start_soon(self._answer_pings, innocents[1])
                await trio.sleep(0.05)
                for number in plan.rounds:
                    if plan.host.virtual_time:
                        trio._core._run._r.seed(f"{plan.seed} {number}")
                    await self._round(served, number, nursery)
                nursery.cancel_scope.cancel()
            await self._stop(served, innocents)

    async def _open(self, served: Served) -> Peer:
        stream = await served.open_stream()
        peer = Peer(stream, served.authority, 0, Life("upgrade", True, False, 0.0, (), "wait"))
        request = peer._request().replace(b"/part/0", b"/echo")
        with trio.fail_after(ECHO_SECONDS):
            await stream.send_all(request)
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                more = await stream.receive_some(4096)
                if not more:
                    raise Failure(-1, [f"a newcomer got no answer but {data!r}"])
                data += more
        assert data.startswith(b"HTTP/1.1 101"), data
        return peer

    # Innocents

    async def _echo(self, peer: Peer) -> None:
        number = 0
        while True:
            number += 1
            began = trio.current_time()
            await self._echo_once(peer, f"innocent {number}")
            self._slowest = max(self._slowest, trio.current_time() - began)
            await trio.sleep(0.01)

    async def _echo_once(self, peer: Peer, text: str) -> None:
        # Shielded, because a cancelled send would damage the client's TLS, and it is to see the server's end.
        with trio.CancelScope(deadline=trio.current_time() + ECHO_SECONDS, shield=True) as limit:
            await peer.stream.send_all(frame(TEXT, text))
            while True:
                data = await peer.stream.receive_some(4096)
                frames = peer._recorder.feed(bytes(data))
                if not data or any(found.opcode not in (TEXT, PING) for found in frames):
                    raise Failure(-1, [f"an innocent was closed: {frames or 'the end of TCP'}"])
                texts = [found.text for found in frames if found.opcode == TEXT]
                if texts:
                    break
        if limit.cancelled_caught:
            raise Failure(-1, [f"an innocent's echo took more than {ECHO_SECONDS} s"])
        if texts != [text]:
            raise Failure(-1, [f"an innocent sent {text!r} and received {texts!r}"])

    async def _answer_pings(self, peer: Peer) -> None:
        while data := await peer.stream.receive_some(4096):
            for found in peer._recorder.feed(bytes(data)):
                if found.opcode != PING:
                    raise Failure(-1, [f"a quiet innocent received {found}"])
                self._pinged += 1
                with trio.CancelScope(shield=True):
                    await peer.stream.send_all(frame(PONG, found.payload))
        raise Failure(-1, ["a quiet innocent was disconnected"])

    # Rounds

    async def _round(self, served: Served, number: int, watching: trio.Nursery) -> None:
        play, plan = self._play, self._plan
        before = self._figures(served)
        cast = [plan.cast(number, client) for client in plan.clients]
        began = time.monotonic()
        peers: list[tuple[Part, Peer]] = []
        async with trio.open_nursery() as nursery:
            for part, life in cast:
                play.parts[part.number] = part
                peer = Peer(await served.open_stream(), served.authority, part.number, life)
                peers.append((part, peer))
                nursery.start_soon(peer.live)
        wrongs = await self._settle(served, before)
        newcomer = await self._open(served)
        await self._echo_once(newcomer, "a newcomer")
        newcomer.vanish()
        wrongs += self._journal.wrongs + self._noise.wrongs
        for part, peer in peers:
            records = self._journal.crashes.pop(str(part.number), [])
            for wrong in judge(part, peer, records):
                wrongs.append(f"client {part.number}: {wrong}\n    {part}\n    {peer.life}")
        wrongs += [f"a crash of {path}, which does not play" for path in self._journal.crashes]
        opened = sum(part.started for part, _ in peers)
        self._report(
            f"round {number}: {len(peers)} clients, {opened} WebSockets, "
            f"{sum(part.raised for part, _ in peers)} raised, {time.monotonic() - began:.2f} s; "
            f"slowest innocent echo {self._slowest * 1000:.0f} ms, {self._pinged} pings"
        )
        if wrongs:
            raise Failure(number, wrongs)
        play.parts.clear()
        wrongs = await self._settle(served, before)
        if wrongs:
            raise Failure(number, wrongs)

    async def _settle(self, served: Served, before: dict[str, object]) -> list[str]:
        """Wait until the server is as it was before, or say what is not."""
        after: dict[str, object] = {}
        with trio.move_on_after(SETTLE_SECONDS):
            pause = 0.01
            while (after := self._figures(served)) != before:
                await trio.sleep(pause)
                pause *= 1.5
        return [
            f"{what}: {before[what]} before and {after[what]} after"
            for what in before
            if after[what] != before[what]
        ]

    def _figures(self, served: Served) -> dict[str, object]:
        play = self._play
        server = served.server
        if isinstance(server, MemoryServer):
            for link in server._links:
                link.crash = (
                    None  # kept for whoever tests with it, and with it all that the exception has seen
                )
            server = server.server
        gc.collect()
        figures: dict[str, object] = {
            "tasks": _tasks(),
            "members": {name: len(room.members) for name, room in play.rooms.items()},
            "present": {name: len(room.present()) for name, room in play.rooms.items()},
            "connections alive": sum(not play.is_left(ws) for ws in play.connections),
            "unwritten bytes": sum(ws.statistics().outbox_bytes for ws in play.connections) > 200,
            "descriptors": len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0,
        }
        if isinstance(server, Server):
            statistics = server.statistics()
            figures["connections"] = statistics.connections, statistics.websockets
        return figures

    async def _stop(self, served: Served, innocents: list[Peer]) -> None:
        """Stop the server: it sends Close 1001 to every client, and ends by its hard deadline."""
        served.stop()
        for peer in innocents:
            with trio.move_on_after(TIMEOUTS.drain + ECHO_SECONDS):
                while data := await peer.stream.receive_some(4096):
                    peer._take(bytes(data))
                    await peer._answer()
                    if peer.close is not None:
                        break
            if peer.close is None or peer.close.close_code != 1001:
                raise Failure(-1, [f"the Close of an innocent: {peer.close}"])
            peer.vanish()
        with trio.move_on_after(TIMEOUTS.drain + ECHO_SECONDS) as limit:
            await served.stopped.wait()
        if limit.cancelled_caught:
            raise Failure(-1, ["the server did not stop"])
