"""The observers of one server as one observer, which contains their exceptions.

Each event goes to the observers that define its method, the log first. If only the log does, which is the
case without observers of the user, the event calls the log's method directly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from wsframework.crashes import forget_earlier_frames, interrupt_in
from wsframework.observer import FRAME_EVENTS, Observer, event_names, observes
from wsframework.records import describe
from wsframework.server.logged import LogObserver
from wsframework.server.rated import RatedRecord
from wsframework.timers import Timers

__all__ = ["Observers"]


class Observers(Observer):
    """Passes every event on to the log and to a user's observers.

    Args:
        users: the user's observers, in the order in which they are called.
        timers: the server's, for records at a rate.
        on_interrupt: called with a KeyboardInterrupt that an observer raised.
    """

    def __init__(
        self, users: Iterable[Observer], timers: Timers, on_interrupt: Callable[[KeyboardInterrupt], None]
    ) -> None:
        self._log = LogObserver(timers)
        self._on_interrupt = on_interrupt
        self._called: set[int] = set()  # ids of observers whose methods run now
        contained = [(observer, RatedRecord(timers, logging.ERROR, "observer.failed")) for observer in users]
        self._frames_wanted = False
        for event in event_names():
            methods: list[Callable[..., object]] = [
                self._contain(observer, event, failures)
                for observer, failures in contained
                if observes(observer, event)
            ]
            self._frames_wanted |= bool(methods) and event in FRAME_EVENTS
            log = getattr(self._log, event)
            setattr(self, event, _each([log, *methods]) if methods else log)

    def wants_frames(self) -> bool:
        """Return whether the next connection's frames are to be observed."""
        return self._frames_wanted or self._log.wants_frames()

    def _contain(self, observer: Observer, event: str, failures: RatedRecord) -> Callable[..., object]:
        method, name = getattr(observer, event), type(observer).__qualname__
        called, key = self._called, id(observer)

        def call(*args: object) -> None:
            if key in called:
                return  # it has caused this itself: a `frame_sent` that sends would be called without end
            called.add(key)
            try:
                method(*args)
            except BaseException as error:  # SystemExit too: an observer does not end what it observes
                forget_earlier_frames(error)
                if (interrupt := interrupt_in(error)) is not None:
                    self._on_interrupt(interrupt)
                else:
                    failures.write(exc_info=error, observer=name, method=event, error=describe(error))
            finally:
                called.discard(key)

        return call


def _each(methods: list[Callable[..., object]]) -> Callable[..., None]:
    def call(*args: object) -> None:
        for method in methods:
            method(*args)

    return call
