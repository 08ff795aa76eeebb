"""Waits for SQLite's write lock on the event loop, in the order of arrival, instead of inside SQLite.

A thread that waits inside SQLite holds the mutex of its connection, and the event loop may come to wait for that.
SQLite gives the lock to whoever tries at the right moment, so that one of many can wait until its time is up.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

_FIRST_PAUSE, _LONGEST_PAUSE = 0.003, 0.05

Execute = Callable[..., Awaitable[Any]]


def retrying(execute: Execute, seconds: float) -> Execute:
    """A method of a connection that runs a function in its thread, repeated while it meets the lock of another process.

    Raises SQLite's error after that time.
    """

    async def repeated(*args: Any, **kwargs: Any) -> Any:
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            try:
                return await execute(*args, **kwargs)
            except sqlite3.OperationalError as error:
                # Outside a transaction the first rows of an executemany are stored already.
                is_repeatable = not any(getattr(one, "__name__", "") == "executemany" for one in args)
                if not (_is_busy(error) and is_repeatable and time.monotonic() < deadline):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    return repeated


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", None) or 0
    # After SQLITE_BUSY_SNAPSHOT what was read is out of date: only the whole transaction can be repeated.
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


class Turns:
    """Lets one after the other write, in the order in which they came, on each event loop."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def lock(self) -> asyncio.Lock:
        """The lock of the current event loop."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
