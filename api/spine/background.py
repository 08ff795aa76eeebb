"""Background work of a process: repeated until it is cancelled, whatever it raises."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Never

from spine.log_throttle import Outages


async def repeat(work: Callable[[], Awaitable[None]], outages: Outages, seconds_after_an_error: float) -> Never:
    """Do `work` again and again, with a pause after each error; the log gets one line for each kind of error."""
    while True:
        try:
            await work()
            outages.over(work.__name__)
        except Exception as error:
            outages.met(work.__name__, error)
            await asyncio.sleep(seconds_after_an_error)
