"""SIGINT in a worker that was started with SIGINT ignored.

Shells start a command with `&` in a script that way. Prefect's worker answers the first SIGTERM by sending SIGINT to
itself, which would then have no effect, and only a second SIGTERM would end it, without its runs being rescheduled.
"""

import asyncio
import signal
import threading
from contextlib import suppress
from typing import Any


def obey_interrupts() -> None:
    """Let SIGINT end this process in order if it is ignored; call it before Prefect sets its own handlers."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return
    with suppress(RuntimeError):
        # In a loop that runs, asyncio has left the signal alone because it was ignored; this does what it would do.
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def interrupt(*_: Any) -> None:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        signal.signal(signal.SIGINT, interrupt)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
