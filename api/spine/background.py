"""Background work, repeated until it is cancelled; an error does not stop it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Never

from spine.log_throttle import LogThrottle

# The first cancellation of a task that reads a web socket starts closing the socket, the next one cuts that short.
TIMES_TO_CANCEL = 3


async def repeat(
    work: Callable[[], Awaitable[None]], log_throttle: LogThrottle, seconds_after_an_error: float
) -> Never:
    """Repeat `work`, with a pause after each error. The log has one line for each class of error."""
    while True:
        try:
            await work()
            log_throttle.recovered(work.__name__)
        except Exception as error:
            log_throttle.failed(work.__name__, error)
            await asyncio.sleep(seconds_after_an_error)


async def stop_stream(task: asyncio.Task[Never], seconds: float) -> None:
    """Stop a task that reads a web socket, which would wait ten seconds for a busy server to close it."""
    for _ in range(TIMES_TO_CANCEL):
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=seconds / TIMES_TO_CANCEL)
        if done:
            return
