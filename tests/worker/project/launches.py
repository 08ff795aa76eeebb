"""Flows that record what each of their attempts does."""

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
    """Add a line of facts, with the number and the processes of the attempt."""
    attempt = {"attempt": runtime.flow_run.get_run_count(), "pid": os.getpid(), "parent": os.getppid()}
    with Path(path).open("a") as file:
        file.write(json.dumps({**attempt, **facts}) + "\n")


def wait_for(file: Path) -> None:
    """Wait for a file, for a minute at most."""
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)


@flow
def sleeps_for(path: str, seconds: float = 600) -> None:
    """Sleep in C code."""
    write(path, begins=time.time())
    time.sleep(seconds)
    write(path, ends=time.time())


@flow
def exits_late(path: str, seconds: float = 0) -> None:
    """Fail in the first attempt, whose process ends only when a file exists."""
    write(path)
    if runtime.flow_run.get_run_count() == 1:
        atexit.register(wait_for, Path(path).with_suffix(".end"))
        raise LookupError("nothing at first")
    time.sleep(seconds)


@task(persist_result=True)
def first_step(path: str) -> float:
    """A step that must run only once."""
    write(path, step="first_step")
    return time.time()


@flow
def continues(path: str) -> None:
    """Run a step, and sleep after it in the first attempt."""
    first_step(path)
    if runtime.flow_run.get_run_count() == 1:
        write(path, step="sleep")
        time.sleep(600)
    write(path, step="end")


@flow
def ignores_sigterm(path: str, sleep: str = "PyDLL") -> None:
    """Ignore SIGTERM in C code that never returns, with the interpreter's lock (PyDLL) or without it (CDLL)."""
    if runtime.flow_run.get_run_count() == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write(path, begins=time.time())
        for _ in range(600):
            getattr(ctypes, sleep)(None).sleep(600)
    write(path, ends=time.time())


@flow(retries=1)
def sleeps_at_first(path: str) -> None:
    """Sleep in the first attempt, which is to be the last but one."""
    write(path)
    if runtime.flow_run.get_run_count() == 1:
        time.sleep(600)


@flow
def vanishes(path: str) -> None:
    """End the process with the status of a success, but without a word."""
    write(path)
    os._exit(0)
