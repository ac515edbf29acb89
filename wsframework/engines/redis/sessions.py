"""Sessions that are the same in all processes that use one Redis.

Theory of operation
-------------------
A session is a string in Redis, and each step is one run of a script. The script compares generations: that
refuses what a claim writes whose session another one has taken. It publishes the tag of the claim that was
taken on the channel of its node. The node has noted the tag before it asked for the claim, so it knows the
tag whatever comes first, the message or the answer.

A session expires unless it is *touched*: one task does that for all claims of this process, many in one call.
All of them are touched when a connection to Redis begins, because a message of the channel may be lost with
the one before. Touching finds claims that were taken, and what a failover has lost, which is stored again.

A session that is gone is not made again: it may have been ended by a connection that had taken it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import quote

import attrs
import trio

from wsframework.engines.redis.codec import Command, RedisError
from wsframework.engines.redis.engine import RedisEngine
from wsframework.engines.redis.names import Script
from wsframework.errors import ConfigurationError, RoomUnavailable, SessionUnavailable
from wsframework.records import record
from wsframework.sessions import SessionClaim, SessionStore

__all__ = ["RedisSessionStore"]

_SESSION = Script.load("session")
_TOUCH = Script.load("session_touch")

_AT_ONCE = 100
"""Sessions that one call touches: Redis does nothing else meanwhile, for a quarter of a millisecond."""

_PAUSE_SECONDS = 0.05
"""Between two attempts."""

_DONE, _REFUSED, _GONE, _BEHIND = 1, 0, -1, 2
"""What the scripts answer."""


@attrs.define(eq=False)
class _Held:
    """A claim of this process.

    Attributes:
        claim: the claim.
        version: of the body that Redis has confirmed; it grows with each change of the session.
        number: the highest version that was ever sent; one that failed may still arrive.
        touched_at: when it was touched.
    """

    claim: SessionClaim
    version: int = 0
    number: int = 0
    touched_at: float = 0.0


class RedisSessionStore(SessionStore):
    """Sessions in Redis, over the connection of an engine, so that they can be resumed in any process.

        engine = RedisEngine("redis://localhost")
        sessions = Sessions(store=RedisSessionStore(engine))
        app.install(engine)
        app.install(sessions)

    If Redis loses the newest changes of a session, in a crash or a failover, the process that has the
    connection stores them again. If it has ended too, they are lost, and the session is resumed without them.

    Times are those of Redis' clock. A step for which there is no connection waits for one, for the engine's
    `outage`; one that was on its way when the connection was lost is done again, which has no further effect.

    Args:
        engine: has the connection; make the store before the engine runs.
    """

    def __init__(self, engine: RedisEngine) -> None:
        self._commands = engine.commands
        self._commands.load(_SESSION, _TOUCH)
        self._node = engine.node
        self._channels = f"{self._commands.prefix}:sessions:"
        self._commands.listen(self._channels + self._node, self._heard)
        self._claims: dict[str, _Held] = {}
        self._runs = False
        # The shortest window of all claims so far.
        self._shortest = math.inf
        self._wanted = trio.Event()

    # Its life

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep the sessions of this process within the context."""
        if self._runs:
            raise RuntimeError("this RedisSessionStore runs already; each program needs one of its own")
        self._runs = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                yield
                nursery.cancel_scope.cancel(reason="the store ends")
        finally:
            self._runs = False
            self._claims.clear()

    def _heard(self, tag: bytes | None) -> None:
        if tag is None:
            # A connection begins.
            for held in self._claims.values():
                held.touched_at = -math.inf
            self._wanted.set()
        elif (taken := self._claims.pop(tag.decode(errors="replace"), None)) is not None:
            taken.claim.take()

    async def _keep(self) -> None:
        while True:
            with trio.move_on_after(self._shortest / 8):
                await self._wanted.wait()
            self._wanted = trio.Event()
            now = trio.current_time()
            due = [
                held
                for held in self._claims.values()
                if held.claim.generation and now - held.touched_at >= held.claim.window / 2
            ]
            for at in range(0, len(due), _AT_ONCE):
                # If the connection is lost, the next one begins with it. An App may end the engine first.
                with suppress(RoomUnavailable, RedisError, ConfigurationError):
                    await self._touch(due[at : at + _AT_ONCE])

    async def _touch(self, many: list[_Held]) -> None:
        keys, arguments, now = [], list[str | int](), trio.current_time()
        for held in many:
            claim, held.touched_at = held.claim, now
            keys.append(self._key(claim))
            arguments += [claim.tag, claim.generation, held.version, _seconds(1.5 * claim.window)]
        answers = await self._commands.call(*_TOUCH.call(keys, *arguments))
        gone = 0
        for held, answer in zip(many, answers, strict=True):
            if answer == _REFUSED:
                self._taken(held.claim)
            elif answer == _GONE:
                gone += self._claims.pop(held.claim.tag, None) is not None
            elif answer == _BEHIND:
                with suppress(SessionUnavailable):
                    await self._store(held, held.version, held.claim.body)
        if gone:
            record(logging.ERROR, "redis.sessions_lost", sessions=gone)

    def _taken(self, claim: SessionClaim) -> None:
        self._claims.pop(claim.tag, None)
        claim.take()

    # Steps

    async def create(self, claim: SessionClaim) -> None:
        """Make the record.

        Raises:
            SessionUnavailable: Redis has not done it within the engine's `outage`.
            ConfigurationError: the store or its engine does not run.

        Cancellation: a record that was made is removed.
        """
        details = (claim.user, claim.secret, self._node, 0, claim.body)
        try:
            with self._noted(claim):
                if (await self._step("create", claim, *details))[0] != _DONE:
                    raise SessionUnavailable(f"Redis has a session {claim.id} already")
        finally:
            claim.generation = 1
            if claim.tag not in self._claims:
                self._soon(*self._command("end", claim))

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        """Take a session.

        Raises:
            SessionUnavailable, ConfigurationError: as for `create`.

        Cancellation: it may have been taken.
        """
        details = (claim.user, secret, claim.secret, self._node, round(1000 * claim.overlap))
        with self._noted(claim) as held:
            answer = await self._step("resume", claim, *details, self._channels)
        if answer[0] != _DONE:
            self._claims.pop(claim.tag, None)
            return False
        claim.generation, held.version, claim.body = answer[1], answer[2], answer[3]
        return True

    async def save(self, claim: SessionClaim, body: bytes) -> None:
        """Replace the body.

        Raises:
            SessionUnavailable, ConfigurationError: as for `create`; or Redis has lost the session.

        Cancellation: it may have been replaced.
        """
        held = self._claims.get(claim.tag)
        if held is None:
            await trio.lowlevel.checkpoint()
            self._judge(claim, _REFUSED if claim.taken else _GONE)
            return
        held.number = version = max(held.number, held.version) + 1
        await self._store(held, version, body)
        if not claim.taken:
            held.version, claim.body = version, body

    async def _store(self, held: _Held, version: int, body: bytes) -> None:
        claim = held.claim
        details = (claim.user, claim.secret, self._node, version, body)
        answer = await self._step("save", claim, *details)
        held.touched_at = trio.current_time()
        self._judge(claim, answer[0])

    async def confirm(self, claim: SessionClaim) -> None:
        """Forget the secret before.

        Raises:
            SessionUnavailable, ConfigurationError: as for `save`.

        Cancellation: it may have been done.
        """
        answer = (await self._step("confirm", claim))[0]
        held = self._claims.get(claim.tag)
        if answer == _BEHIND and held is not None:
            await self._store(held, held.version, claim.body)
            answer = (await self._step("confirm", claim))[0]
        self._judge(claim, answer)

    async def end(self, claim: SessionClaim) -> None:
        """Remove the record.

        Raises:
            SessionUnavailable, ConfigurationError: as for `create`.

        Cancellation: it may have been removed.
        """
        answer = (await self._step("end", claim))[0]
        self._claims.pop(claim.tag, None)
        if answer == _REFUSED:
            claim.take()

    def release(self, claim: SessionClaim) -> None:
        """Let the record expire after the claim's window; at the latest half as much later."""
        held = self._claims.pop(claim.tag, None)
        if held is not None:
            terms = (claim.tag, claim.generation, held.version, _seconds(claim.window))
            self._soon(*_TOUCH.call([self._key(claim)], *terms))

    # How a step is done

    @contextmanager
    def _noted(self, claim: SessionClaim) -> Iterator[_Held]:
        """Know a claim from before it is asked for, unless that fails."""
        if not self._runs:
            raise ConfigurationError(
                "the RedisSessionStore does not run: write app.install(sessions) before the app serves"
            )
        held = self._claims[claim.tag] = _Held(claim, touched_at=trio.current_time())
        if claim.window < self._shortest:
            self._shortest = claim.window
            self._wanted.set()
        try:
            yield held
        except BaseException:
            self._claims.pop(claim.tag, None)
            raise

    def _judge(self, claim: SessionClaim, answer: int) -> None:
        """Act on the answer to a claim that changes its session.

        Raises:
            SessionUnavailable: the session is gone.
        """
        if answer == _REFUSED:
            self._taken(claim)
        elif answer != _DONE:
            self._claims.pop(claim.tag, None)
            raise SessionUnavailable(f"Redis has lost the session {claim.id}, or it was ended")

    async def _step(self, step: str, claim: SessionClaim, *details: bytes | str | int) -> list[Any]:
        """Run the script, again if a connection was lost before the answer.

        Raises:
            SessionUnavailable: there was no answer within the engine's `outage`, or it is an error.
        """
        command, outage = self._command(step, claim, *details), self._commands.outage
        unknown, why = False, ""
        # A little more, so that a call which has only waited for a connection says so itself.
        with trio.move_on_after(outage + _PAUSE_SECONDS):
            while True:
                answered = False
                try:
                    answer: list[Any] = await self._commands.call(*command)
                    return answer
                except RedisError as error:
                    raise SessionUnavailable(f"Redis refuses it: {error}") from None
                except RoomUnavailable as error:
                    unknown, why, answered = unknown or error.unknown, str(error), True
                await trio.sleep(_PAUSE_SECONDS)
        if not answered:
            unknown, why = True, "there was no answer"
        raise SessionUnavailable(f"Redis did not do it within {outage:g} s: {why}", unknown=unknown)

    def _soon(self, *command: bytes | str | int) -> None:
        # The engine may have ended; without a connection, the record expires by itself.
        with suppress(ConfigurationError):
            self._commands.call_soon(*command)

    def _command(self, step: str, claim: SessionClaim, *details: bytes | str | int) -> Command:
        terms = (claim.tag, claim.generation, _seconds(1.5 * claim.window))
        return _SESSION.call([self._key(claim)], step, *terms, *details)

    def _key(self, claim: SessionClaim) -> str:
        return f"{self._commands.prefix}:{{s/{quote(claim.id, safe='', errors='surrogatepass')}}}"


def _seconds(time: float) -> int:
    return math.ceil(time)
