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
    with Path(path).open("a") as file:
        file.write(json.dumps({"attempt": runtime.flow_run.get_run_count(), "pid": os.getpid(), **facts}) + "\n")


@flow
def lasts(path: str, seconds: float = 600) -> None:
    """Sleep in C code."""
    write(path, begins=time.time())
    time.sleep(seconds)


@flow
def lingers(path: str, seconds: float = 0) -> None:
    """Fail at first, in a process that takes its time to end."""
    write(path)
    if runtime.flow_run.get_run_count() == 1:
        atexit.register(time.sleep, 2)
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
