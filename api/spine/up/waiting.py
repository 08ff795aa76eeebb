"""Waiting that notices signals and children that ended, and the exceptions that end `spine up`."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar


class UpError(Exception):
    """The start or a child failed; the message is one sentence that a person can act on."""


class StopRequested(Exception):
    """SIGINT or SIGTERM arrived: stop every child and exit."""


T = TypeVar("T")
# A closed terminal sends SIGHUP.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSE = 0.1


class Signals:
    """Within the block SIGINT, SIGTERM and SIGHUP request a stop; a second SIGINT requests it at once.

    The handlers only set flags: an exception from a handler could be raised between the start of a child and the
    record of that child.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # `nohup` ignores SIGHUP on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        # Supervisors may repeat SIGTERM; only a person who presses Ctrl-C again is in a hurry.
        if self.stop.is_set() and number == signal.SIGINT:
            self.hurry.set()
        self.stop.set()


class Waiting:
    """Waits for one thing while checking for signals and, through `watch`, for children that ended."""

    def __init__(self, signals: Signals, watch: Callable[[], None]) -> None:
        self._signals = signals
        self._watch = watch

    def check(self) -> None:
        """Raise `StopRequested` after a signal, or `UpError` when a child has ended."""
        if self._signals.stop.is_set():
            raise StopRequested
        self._watch()

    def until(self, ready: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait until `ready()`; after `seconds` raise `UpError(otherwise)`."""
        if not self.within(ready, seconds):
            raise UpError(otherwise)

    def within(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until `ready()`; False when that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if ready():
                return True
            if time.monotonic() > deadline:
                return False
            self._signals.stop.wait(_PAUSE)

    def result(self, work: Callable[[], T]) -> T:
        """The result of blocking `work`, run aside so that a signal need not wait for it.

        After a signal the work is abandoned with the process: its thread is a daemon.
        """
        future = in_background(work)
        while not future.done():
            self.check()
            self._signals.stop.wait(_PAUSE / 2)
        return future.result()

    def forever(self) -> None:
        """Return never: leave by `StopRequested` or `UpError`."""
        while True:
            self.check()
            self._signals.stop.wait(0.5)


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Run `work` in a daemon thread."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
