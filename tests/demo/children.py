"""Child flows that run side by side, so that their calls come in another order in each attempt."""

import asyncio
from pathlib import Path

from prefect import flow, task

SECONDS = {"A": 0.8, "B": 1.2, "C": 0.1}


def mark(marks: str, text: str) -> None:
    """Count that something ran."""
    with Path(marks).open("a") as file:
        file.write(f"{text}\n")


def fail_until(unless: str, what: str) -> None:
    """Fail until the file exists."""
    if not Path(unless).exists():
        Path(f"{unless}-tried").touch()
        raise ValueError(f"bad {what}")


def heal_if_tried(unless: str) -> None:
    """Make the file if something has failed without it."""
    if Path(f"{unless}-tried").exists():
        Path(unless).touch()


@task(persist_result=True, result_serializer="json")
def note(letter: str) -> str:
    """Return the letter."""
    return letter


@flow(name="demo.first_child", persist_result=True, result_serializer="json")
async def first_child(letter: str) -> str:
    """Take as long as the letter takes."""
    await asyncio.sleep(SECONDS[letter])
    return note(letter)


@flow(name="demo.second_child", persist_result=True, result_serializer="json")
async def second_child(letter: str, broken: str, marks: str, unless: str) -> str:
    """Fail for the letter `broken` until a file exists."""
    mark(marks, letter)
    if letter == broken:
        fail_until(unless, letter)
    return note(letter)


async def both(letter: str, broken: str, marks: str, unless: str) -> str:
    """One child, then the other."""
    await first_child(letter)
    return await second_child(letter, broken, marks, unless)


async def all_at_once(broken: str, marks: str, unless: str) -> dict[str, list[str]]:
    """Both children of each letter; `broken` may be the end, after all children."""
    letters = [both(letter, broken, marks, unless) for letter in SECONDS]
    done = await asyncio.gather(*letters, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    if broken == "end":
        fail_until(unless, "end")
    letters_got = [str(one) for one in done]
    mark(f"{marks}-returned", "".join(letters_got))
    return {"letters": letters_got}


@flow(name="demo.children_at_once", persist_result=True, result_serializer="json")
async def children_at_once(broken: str, marks: str, unless: str) -> dict[str, list[str]]:
    """Three pairs of children side by side."""
    return await all_at_once(broken, marks, unless)


@flow(name="demo.children_tried_twice", retries=1, persist_result=True, result_serializer="json")
async def children_tried_twice(broken: str, marks: str, unless: str) -> dict[str, list[str]]:
    """The same, with a second attempt in the same process, which succeeds."""
    heal_if_tried(unless)
    return await all_at_once(broken, marks, unless)
