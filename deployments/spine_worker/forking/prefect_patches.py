"""Work that Prefect repeats in each run and that runs can share.

Two things take most of the time between the fork of a run and its first step. Each of Prefect's clients reads the
same 150 certificates into a TLS context of its own, 25 ms each. And the engine waits for its subscription to
suspensions, another 100 ms, before it begins the flow. A suspension takes effect only between steps, so the flow can
begin before the subscription is made, and a run that has ended after a second needs none.
"""

import asyncio
import contextvars
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from uuid import UUID

import prefect.client.orchestration
import prefect.flow_engine
from prefect._flow_run_suspension import FlowRunSuspensionRequest, mark_flow_run_suspension_requested
from prefect._internal.observers import FlowRunSuspendingObserver
from prefect.client.schemas.objects import State
from prefect.logging import get_logger

_SECONDS_BEFORE_SUBSCRIBING = 1.0
_SECONDS_BETWEEN_CHECKS = 0.2
_SECONDS_TO_END = 2.0


def patch_prefect() -> None:
    """Change Prefect in this process and in the processes that are forked from it."""
    cached = lru_cache(ssl.create_default_context)
    prefect.client.orchestration.ssl = SimpleNamespace(  # type: ignore[assignment, attr-defined]
        **{**vars(ssl), "create_default_context": cached}
    )
    prefect.flow_engine.observe_flow_run_suspension = _observe_suspension  # type: ignore[attr-defined]


@contextmanager
def _observe_suspension(
    flow_run_id: UUID, suspension_request: FlowRunSuspensionRequest, polling_interval: float = 10
) -> Iterator[None]:
    """Mark the request when the run is suspended, as Prefect does, but subscribe a second later and in the background.

    The observer reads the state once it has subscribed, so that it also finds an earlier suspension.
    """
    ended = threading.Event()

    def suspended(flow_run_id: UUID, state: State) -> None:
        if not mark_flow_run_suspension_requested(flow_run_id, state):
            suspension_request.mark_requested(state)

    async def observe() -> None:
        async with FlowRunSuspendingObserver(on_suspended=suspended, polling_interval=polling_interval) as observer:
            await observer.watch_flow_run_id(flow_run_id)
            while not ended.is_set():  # noqa: ASYNC110 (another thread sets it)
                await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)

    def observe_in_thread() -> None:
        if ended.wait(_SECONDS_BEFORE_SUBSCRIBING):
            return
        try:
            asyncio.run(observe())
        except Exception:  # The run can do without.
            get_logger("flow_run_suspension").debug("Suspensions are no longer observed.", exc_info=True)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(observe_in_thread,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_SECONDS_TO_END)
