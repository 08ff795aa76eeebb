"""Flows that tell which of their attempts does what."""

import atexit
import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from prefect import flow, runtime, task

if Path("slow").exists():
    time.sleep(60)


def write(path: str, **facts: Any) -> None:
    """Add a line of facts, with the number of the attempt."""
    who = {"attempt": runtime.flow_run.get_run_count(), "pid": os.getpid(), "parent": os.getppid()}
    with Path(path).open("a") as file:
        file.write(json.dumps({**who, **facts}) + "\n")


def wait_for(file: Path) -> None:
    """Wait for a file, for a minute at most."""
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)


@flow
def lasts(path: str, seconds: float = 600) -> None:
    """Sleep in C code."""
    write(path, begins=time.time())
    time.sleep(seconds)
    write(path, ends=time.time())


@flow
def lingers(path: str, seconds: float = 0) -> None:
    """Fail at first, in a process that ends when a file is there."""
    write(path)
    if runtime.flow_run.get_run_count() == 1:
        atexit.register(wait_for, Path(path).with_suffix(".end"))
        raise LookupError("nothing at first")
    time.sleep(seconds)


@task(persist_result=True)
def remember(path: str) -> float:
    """A step that is to be done once."""
    write(path, step="remember")
    return time.time()


@flow
def goes_on(path: str) -> None:
    """Do a step, and then sleep in the first attempt."""
    remember(path)
    if runtime.flow_run.get_run_count() == 1:
        write(path, step="sleep")
        time.sleep(600)
    write(path, step="end")


@flow
def hears_nothing(path: str, sleep: str = "PyDLL") -> None:
    """Ignore what asks for an end, in C code that never comes back: with the interpreter's lock (PyDLL) or without."""
    if runtime.flow_run.get_run_count() == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write(path, begins=time.time())
        for _ in range(600):
            getattr(ctypes, sleep)(None).sleep(600)
    write(path, ends=time.time())
