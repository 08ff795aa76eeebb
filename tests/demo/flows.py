"""Flows that behave in ways the tests need; each step leaves a mark when it really runs."""

import time
from datetime import date
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task


def mark(marks: str, text: str) -> None:
    """Count that something ran."""
    with Path(marks).open("a") as file:
        file.write(f"{text}\n")


@task(persist_result=True, result_serializer="json")
def extract(marks: str) -> dict[str, int]:
    """Step 1."""
    mark(marks, "extract")
    return {"rows": 3}


@task(persist_result=True, result_serializer="json")
def validate(extracted: dict[str, int], marks: str) -> dict[str, int]:
    """Step 2."""
    mark(marks, "validate")
    return {"valid": extracted["rows"]}


@task(persist_result=True, result_serializer="json")
def publish(validated: dict[str, int], marks: str, unless: str) -> dict[str, Any]:
    """Step 3, which fails until the file `unless` exists."""
    mark(marks, "publish")
    if not Path(unless).exists():
        try:
            raise ConnectionRefusedError("port 5432 is closed")
        except ConnectionRefusedError as cause:
            raise RuntimeError("could not publish") from cause
    return {"published": validated["valid"]}


@flow(name="demo.three_steps", persist_result=True, result_serializer="json")
def three_steps(marks: str, unless: str) -> dict[str, Any]:
    """Extract, validate, publish.

    The last step fails until a file exists.
    """
    published = publish(validate(extract(marks), marks), marks, unless)
    return {"rows_processed": published["published"], "capture_id": "demo-1"}


@task(persist_result=True, result_serializer="json")
def double(number: int) -> int:
    """One item of many."""
    return number * 2


@task
def forget() -> str:
    """A step whose result is kept nowhere."""
    return "gone"


@flow(name="demo.child", persist_result=True, result_serializer="json")
def child(marks: str) -> str:
    """Runs inside another flow."""
    mark(marks, "child")
    return "grown"


@flow(name="demo.many_steps")
def many_steps(marks: str) -> None:
    """A loop, mapped tasks, a child flow and a large result."""
    for number in range(3):
        double(number)
    double.map([10, 11]).wait()
    child(marks)
    forget()
    large()
    pickled()


@task(persist_result=True, result_serializer="pickle")
def pickled() -> set[int]:
    """A result that only Python reads."""
    return {1}


@task(persist_result=True, result_serializer="json")
def large() -> list[int]:
    """A result that no answer should carry."""
    return list(range(20_000))


@task
def snooze(seconds: float, marks: str) -> None:
    """Sleep."""
    mark(marks, "snooze")
    time.sleep(seconds)


@flow(name="demo.sleeper")
def sleeper(marks: str, seconds: float = 120) -> None:
    """Sleep in a step and never reach the second."""
    snooze(seconds, marks)
    forget()


@flow(name="demo.sleeping_child")
def sleeping_child(marks: str) -> None:
    """Sleep in a child flow."""
    sleeper(marks)


@flow(name="demo.typed")
def typed(day: date, tier: Literal["A", "B"], count: int = 1, options: dict[str, Any] | None = None) -> None:
    """Parameters of several types."""


@flow(name="demo.fails_once_inside", retries=1, retry_delay_seconds=0)
def fails_once_inside(marks: str) -> None:
    """Fail at the first attempt and succeed at the second, without anyone's help."""
    flaky(marks)


@task
def flaky(marks: str) -> None:
    """Fail the first time."""
    before = Path(marks).exists()
    mark(marks, "flaky")
    if not before:
        raise ValueError("not yet")


@flow(name="demo.unpersisted")
def unpersisted(marks: str) -> None:
    """Two steps that persist nothing; the second fails."""
    forget()
    fail(marks)


@task
def fail(marks: str) -> None:
    """Fail always."""
    mark(marks, "fail")
    raise KeyError("always")


@flow(name="demo.parent_of_child", persist_result=True, result_serializer="json")
def parent_of_child(marks: str, unless: str) -> None:
    """A child flow that completes, then a step that fails until a file exists."""
    child(marks)
    publish({"valid": 1}, marks, unless)


@flow(name="demo.waits_to_retry", retries=3, retry_delay_seconds=8)
def waits_to_retry(marks: str) -> None:
    """Fail, and wait in the process for the next try."""
    fail(marks)


@flow(name="demo.same_call_twice", persist_result=True, result_serializer="json")
def same_call_twice(marks: str, unless: str) -> None:
    """A step after the first failure is served from the result of one before it."""
    double(4)
    publish({"valid": 1}, marks, unless)
    double(4)
    double(5)
    always_fails()


@task
def always_fails() -> None:
    """Fail always."""
    raise ValueError("always")
