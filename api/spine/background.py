"""Background work of a process: repeated until it is cancelled, whatever it raises."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Never

from spine.log_throttle import LogThrottle


async def repeat(
    work: Callable[[], Awaitable[None]], log_throttle: LogThrottle, seconds_after_an_error: float
) -> Never:
    """Do `work` again and again, with a pause after each error; the log gets one line for each kind of error."""
    while True:
        try:
            await work()
            log_throttle.recovered(work.__name__)
        except Exception as error:
            log_throttle.failed(work.__name__, error)
            await asyncio.sleep(seconds_after_an_error)
