"""Trying a connection: connect with the real driver, ask something trivial, and tell what the server said."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spine.connections.drivers import driver_of
from spine.connections.drivers.base import Driver, abort_after, connected, explained
from spine.connections.resolved_connection import ConnectionTarget
from spine.connections.usage import counted
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.errors import Unavailable
from spine.schemas import ErrorCategory

SECONDS_TO_TRY = 10.0
# More at once are not begun: one that waits for its turn would look like a database that does not answer.
MOST_AT_ONCE = 32
# A driver that meets its limit says more than one that is given up.
_SECONDS_FOR_THE_DRIVER = 1.0
# Of their own, so that slow databases take no threads from anything else.
_threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="try-connection")
_free = threading.BoundedSemaphore(MOST_AT_ONCE)


@dataclass(frozen=True)
class Trial:
    """What came of a try; `latency_ms` is from the first packet to the answer."""

    success: bool
    message: str
    latency_ms: float | None = None


async def try_connection(target: ConnectionTarget, seconds: float = SECONDS_TO_TRY) -> Trial:
    """Connect, ask, and close, all within so many seconds. Raises `Unavailable` while too many others are tried."""
    if not _free.acquire(blocking=False):
        raise Unavailable(f"{MOST_AT_ONCE} connections are being tried at this moment; try {target.name} again soon.")
    work = _threads.submit(_try, target, max(seconds - _SECONDS_FOR_THE_DRIVER, 0.1))
    work.add_done_callback(lambda _: _free.release())
    trying = asyncio.wrap_future(work)
    done, _ = await asyncio.wait([trying], timeout=seconds)
    if done:
        return trying.result()
    # Its thread ends by the limits of the driver.
    return Trial(False, f"The database {target.name} did not answer within {seconds:g} s.")


def _try(target: ConnectionTarget, seconds: float) -> Trial:
    try:
        driver = driver_of(target.db_type)
    except FetchFailure as missing:
        return Trial(False, missing.sentence)
    began = time.monotonic()
    limits = Limits(None, began + seconds, seconds)
    work = GuardedCall(target.allow_private, limits)
    try:
        with counted(target.id):
            product = work.run(_ask, driver, target, limits)
    except FetchFailure as failure:
        refused = work.refusal(target.host)
        late = time.monotonic() - began >= seconds and failure.category is ErrorCategory.NETWORK
        told = f"The database {target.name} did not answer within {seconds:g} s." if late else failure.sentence
        return Trial(False, refused.sentence if refused else told)
    finally:
        work.close()
    took = round((time.monotonic() - began) * 1000, 1)
    return Trial(True, f"{product} answered in {took:g} ms.", took)


def _ask(driver: Driver, target: ConnectionTarget, limits: Limits) -> str:
    with explained(driver, target):
        session = connected(driver, target, limits.left())
        clock = abort_after(limits.left(), session.abort)
        try:
            return session.probe()
        finally:
            clock.cancel()
            session.close()
