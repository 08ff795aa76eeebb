"""Work that is done for several callers at once, because each round costs more than each item in it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Work = Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]


class Grouped(Generic[Item, Result]):
    """Calls `work` with all items that wait; what arrives meanwhile waits for the next call.

    `work` returns a result, or the exception to raise, for each item in order. What it raises itself is raised for
    every item of the group. An item that arrives is always part of a call that begins later, never of one that has
    begun; one whose caller has stopped waiting by then is dropped.
    """

    def __init__(self, work: Work[Item, Result], most: int) -> None:
        self._work = work
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._working: asyncio.Task[None] | None = None

    async def do(self, item: Item) -> Result:
        """The result for one item. Work that has begun continues if the caller is cancelled."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._working is None:
            # Without the context variables of this caller: its request id must not be in the log lines of others.
            self._working = asyncio.create_task(self._work_through(), context=Context())
        return await result

    @property
    def is_idle(self) -> bool:
        """Whether no item waits and none is worked on."""
        return self._working is None

    async def _work_through(self) -> None:
        try:
            while group := self._next():
                await self._work_on(group)
        finally:
            self._working = None
            for _, result in self._waiting:
                # Only where the task was cancelled.
                result.cancel()
            self._waiting.clear()

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        waiting = [(item, result) for item, result in self._waiting if not result.done()]
        self._waiting = waiting[self._most :]
        return waiting[: self._most]

    async def _work_on(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            outcomes = await self._work([item for item, _ in group])
        except asyncio.CancelledError:
            for _, result in group:
                result.cancel()
            raise
        except Exception as error:
            outcomes = [error] * len(group)
        for (_, result), outcome in zip(group, outcomes, strict=True):
            if result.done():
                continue
            if isinstance(outcome, Exception):
                result.set_exception(outcome)
            else:
                result.set_result(outcome)
