"""The health check of a connection: connect with the real driver, run a trivial query, and report the result."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spine.connections.drivers import driver_of
from spine.connections.drivers.base import Driver, Session, abort_after, log, open_session, translated_errors
from spine.connections.resolved_connection import ResolvedConnection
from spine.connections.usage import track_session
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.errors import Unavailable
from spine.schemas import ErrorCategory

SECONDS_FOR_A_CHECK = 10.0
# A check that waited for a thread would report that its database does not respond.
MOST_CONCURRENT_CHECKS = 32
# The driver ends before the check does, because its own error says more than a timeout.
_SECONDS_AFTER_THE_DRIVER = 1.0
# A pool of its own, so that slow databases do not block other work.
_threads = ThreadPoolExecutor(MOST_CONCURRENT_CHECKS, thread_name_prefix="check-connection")
_free = threading.BoundedSemaphore(MOST_CONCURRENT_CHECKS)


@dataclass(frozen=True)
class HealthCheckResult:
    """The result of a check; `latency_ms` is the time from the first packet to the result of the query.

    `warnings` are sentences about a user that may do more than read tables.
    """

    success: bool
    message: str
    latency_ms: float | None = None
    warnings: tuple[str, ...] = ()


async def check_health(target: ResolvedConnection, seconds: float = SECONDS_FOR_A_CHECK) -> HealthCheckResult:
    """Connect, query and close, within so many seconds. Raises `Unavailable` while too many checks are running."""
    if not _free.acquire(blocking=False):
        raise Unavailable(f"{MOST_CONCURRENT_CHECKS} connections are being tested already; test {target.name} later.")
    work = _threads.submit(_check, target, max(seconds - _SECONDS_AFTER_THE_DRIVER, 0.1))
    work.add_done_callback(lambda _: _free.release())
    checking = asyncio.wrap_future(work)
    done, _ = await asyncio.wait([checking], timeout=seconds)
    if done:
        return checking.result()
    # The thread ends at the driver's own time limit.
    return HealthCheckResult(False, _no_response(target, seconds))


def _check(target: ResolvedConnection, seconds: float) -> HealthCheckResult:
    try:
        driver = driver_of(target.db_type)
    except FetchFailure as missing:
        return HealthCheckResult(False, missing.sentence)
    started = time.monotonic()
    limits = Limits(None, started + seconds, seconds)
    call = GuardedCall(target.allow_private, limits)
    try:
        with track_session(target.id):
            product, latency_ms, rights = call.run(_probe, driver, target, limits)
    except FetchFailure as failure:
        if refused := call.refusal(target.host):
            return HealthCheckResult(False, refused.sentence)
        timed_out = time.monotonic() - started >= seconds and failure.category is ErrorCategory.NETWORK
        return HealthCheckResult(False, _no_response(target, seconds) if timed_out else failure.sentence)
    finally:
        call.close()
    message = f"{product} responded in {latency_ms:g} ms."
    if not rights:
        return HealthCheckResult(True, message, latency_ms)
    warning = (
        f"The user {target.username or ''} {', '.join(rights)}. Queries of sources could use that: connect as a user "
        "that may only read the tables it needs."
    )
    return HealthCheckResult(True, f"{message} Warning: {warning}", latency_ms, (" ".join(warning.split()),))


def _excess_rights(session: Session, target: ResolvedConnection) -> list[str]:
    try:
        return session.excess_rights()
    except Exception as error:
        # Not every server lets its users see their rights, and the connection works. Its message may have a secret.
        log.info("rights_not_shown", connection=target.name, error=type(error).__name__)
        return []


def _no_response(target: ResolvedConnection, seconds: float) -> str:
    return f"The database {target.name} did not respond within {seconds:g} s."


def _probe(driver: Driver, target: ResolvedConnection, limits: Limits) -> tuple[str, float, list[str]]:
    """The product, the milliseconds until it responded, and what the user may do beyond reading."""
    started = time.monotonic()
    with translated_errors(driver, target):
        session = open_session(driver, target, limits.left())
        timer = abort_after(limits.left(), session.abort)
        try:
            product = session.probe()
            latency_ms = round((time.monotonic() - started) * 1000, 1)
            return product, latency_ms, _excess_rights(session, target)
        finally:
            timer.cancel()
            session.close()
