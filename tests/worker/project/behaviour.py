"""Flows that both workers must execute alike. They record facts in a file."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, suspend_flow_run, task
from prefect.context import get_run_context
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner


def write(path: str, **facts: Any) -> None:
    """Add a line of facts."""
    with Path(path).open("a") as file:
        file.write(json.dumps(facts) + "\n")


def hook(name: str) -> Any:
    """A hook that records that it has run."""

    def record(flow: object, flow_run: Any, state: Any) -> None:
        write(flow_run.parameters["path"], hook=name, state=state.type.value)

    return record


@task
def double(number: int) -> tuple[int, int]:
    """Twice the number, and the process that computed it."""
    return 2 * number, os.getpid()


@flow
def child(number: int) -> int:
    """A subflow."""
    return double(number)[0]


@flow
def reports(path: str, word: str) -> str:
    """Record the facts of the process."""
    get_run_logger().info("The word is %s.", word)
    print("printed: " + word)
    write(
        path,
        word=word,
        cwd=str(Path.cwd()),
        first_path=sys.path[0],
        mark=os.environ.get("MARK"),
        pool=os.environ.get("POOL"),
        run_id=os.environ.get("PREFECT__FLOW_RUN_ID"),
        is_current=runtime.flow_run.get_id() == os.environ.get("PREFECT__FLOW_RUN_ID"),
        pid=os.getpid(),
        group=os.getpgid(0),
        main=sys.modules["__main__"].__name__,
        executable=sys.executable,
    )
    return word


@flow(task_runner=ThreadPoolTaskRunner(max_workers=3))  # type: ignore[arg-type]
def works_in_threads(path: str) -> None:
    """Run mapped tasks in threads of this process, and a subflow."""
    results = double.map([1, 2, 3]).result()
    write(path, results=[one[0] for one in results], pids=[one[1] for one in results], pid=os.getpid(), child=child(21))


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def works_in_processes(path: str) -> None:
    """Run mapped tasks in processes of their own."""
    results = double.map([1, 2, 3]).result()
    write(path, results=[one[0] for one in results], pids=[one[1] for one in results], pid=os.getpid())


@flow(on_failure=[hook("on_failure")])
def fails(path: str) -> None:
    """End with an exception."""
    raise LookupError(f"nothing at {Path(path).name}")


@flow(retries=2)
def succeeds_on_third_try(path: str) -> None:
    """Fail twice."""
    count = runtime.flow_run.get_run_count()
    write(path, count=count, pid=os.getpid())
    if count < 3:
        raise LookupError("not yet")


@flow(timeout_seconds=1.5)
def takes_too_long(path: str) -> None:
    """Sleep beyond the time limit."""
    write(path, pid=os.getpid())
    for _ in range(600):
        time.sleep(0.1)


@flow(on_crashed=[hook("on_crashed")], on_cancellation=[hook("on_cancellation")])
def sleeps(path: str) -> None:
    """Sleep in C code until something ends the process."""
    write(path, pid=os.getpid())
    time.sleep(600)


@flow(on_completion=[hook("on_completion")])
def suspends(path: str) -> None:
    """End the process and, when resumed, continue in another one."""
    write(path, pid=os.getpid())
    suspend_flow_run(timeout=300, key="once")
    write(path, resumed=os.getpid(), run_count=get_run_context().flow_run.run_count)  # type: ignore[union-attr]


@flow
def takes_turns(path: str) -> None:
    """Run with a limit of one run at a time."""
    write(path, begins=time.time())
    time.sleep(0.5)
    write(path, ends=time.time())


@flow
def shows_environment(path: str) -> None:
    """Record the variables of the process."""
    write(path, environment=dict(os.environ))
