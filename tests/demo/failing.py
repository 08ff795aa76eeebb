"""Flows that fail in many ways."""

import os
import signal
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from prefect import flow, task
from prefect.exceptions import Abort


class Mute(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@flow(name="demo.strict_child")
def strict_child(number: int) -> None:
    """Take a number."""


@flow(name="demo.exact")
def exact(amount: Decimal) -> None:
    """Take a decimal."""


@flow(name="demo.many_words")
def many_words(**kwargs: int) -> None:
    """Take any words."""


@task
def works() -> None:
    """Succeed."""


@task
def breaks(error: Exception) -> None:
    """Fail."""
    raise error


def returned() -> object:
    """The states of three steps, two of which failed."""
    ended = [works(return_state=True)]
    return ended + [breaks(one, return_state=True) for one in (KeyError("inner"), ValueError("second"))]


@task(timeout_seconds=0.2)
def slow() -> None:
    """Take too long."""
    time.sleep(2)


@flow(name="demo.late_child", timeout_seconds=0.2)
def late_child() -> None:
    """Take too long."""
    time.sleep(2)


def chain() -> None:
    """Fail because of something else."""
    try:
        raise ConnectionRefusedError("port 5432 is closed")
    except ConnectionRefusedError as cause:
        raise RuntimeError("could not publish") from cause


def throw(error: BaseException) -> Callable[[], None]:
    """Something that raises this."""

    def raises() -> None:
        raise error

    return raises


TEXT: Any = "abc"
WORDS: dict[str, Any] = {"numbers": 1}

WAYS: dict[str, Callable[[], object]] = {
    "key": throw(KeyError("week_ending")),
    "mute": throw(Mute()),
    "empty": throw(ValueError()),
    "lines": throw(ValueError("first\nsecond: x")),
    "group": throw(ExceptionGroup("both", [ValueError("a"), KeyError("b")])),
    "long": throw(ValueError("x" * 2_000_000)),
    "half a pair": throw(ValueError("half \ud800 of a pair")),
    "null": throw(ValueError("a\0b")),
    "step with null": lambda: breaks(ValueError("a\0b")),
    "memory": throw(MemoryError("no more")),
    "chain": chain,
    "returned": returned,
    "refused child": lambda: strict_child(TEXT),
    "unknown argument": lambda: strict_child(**WORDS),
    "decimal": lambda: exact(TEXT),
    "task time": slow,
    "late child": late_child,
    "abort": throw(Abort("enough")),
    "late socket": throw(TimeoutError("the socket timed out")),
    "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "sys exit": lambda: sys.exit(4),
}


@flow(name="demo.fails_by")
def fails_by(way: str) -> object:
    """Fail in one of the ways."""
    return WAYS[way]()
