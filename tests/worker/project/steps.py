"""A flow of three steps that do nothing."""

import asyncio

from prefect import flow, task


@task
def step(number: int) -> int:
    """One more."""
    return number + 1


@flow
def three_steps(path: str) -> int:
    """Three steps, one after the other."""
    return step(step(step(0)))


@flow
async def three_steps_async(path: str) -> int:
    """The same in an asynchronous flow."""
    await asyncio.sleep(0)
    return step(step(step(0)))
