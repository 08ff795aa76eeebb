"""`spine.fetch_source`: fetch the content of a registered source into the cache."""

import os
import re
import socket
from logging import Logger, LoggerAdapter
from typing import Any, TypedDict
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.loggers import flow_run_logger
from prefect.tasks import Task, exponential_backoff

from spine.auth.domains import EVERY_DOMAIN
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Unavailable
from spine.prefect.client import Prefect
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import FetchRun, OpenFetch, start_fetch
from spine.sources.fetching.context import open_fetch_context
from spine.sources.fetching.fetcher import record_failure, run_fetch
from spine.sources.schemas import FetchTrigger
from spine.workflows.labels import trigger_of
from spine.workflows.run_detail import origin_of


class FetchSummary(TypedDict):
    """The result of the flow. ``capture_id`` identifies the content: its SHA-256 in hex."""

    fetch_id: str
    status: str
    capture_id: str
    bytes_fetched: int
    rows_processed: int | None


async def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another attempt of the task may succeed."""
    try:
        await state.aresult()
    except FetchFailure as failure:
        return failure.transient
    except Unavailable:
        return True
    except BaseException:
        return False
    return False


@task(
    name="fetch",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=_is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def fetch_content(fetch: OpenFetch) -> FetchResult:
    """Wait for the claim on the source, read it, and put content that has changed into the cache."""
    async with open_fetch_context() as context:
        return await run_fetch(context, fetch, get_run_logger().info)


@flow(name="spine.fetch_source", persist_result=True, result_serializer="json")
async def fetch_source(source: str, force: bool = False, fetch_id: str | None = None) -> FetchSummary:
    """Fetch a registered source into the cache, if it has changed.

    Args:
        source: The id or name of the source.
        force: Download the content even if the source reports that it is unchanged.
        fetch_id: The fetch that this run was started for. Leave it out to start a new one.
    """
    async with open_fetch_context() as context:
        fetch = await start_fetch(context.sessions, source, fetch_id, await _this_run(context.prefect, force))
        _flow_logger().info("Fetch %s of the source %s.", fetch.fetch_id, fetch.source_name)
        try:
            async with context.leased(fetch.fetch_id):
                result = await fetch_content(fetch)
        except Exception as error:
            await record_failure(context, fetch, error)
            raise
    await _show(fetch, result)
    return FetchSummary(
        fetch_id=fetch.fetch_id,
        status=result.status,
        capture_id=result.content_hash or "",
        bytes_fetched=result.bytes_fetched,
        rows_processed=result.rows_parsed,
    )


def _flow_logger() -> LoggerAdapter[Logger]:
    """The logger of this flow run. In a flow that a task has called, `get_run_logger` gives that of the task."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise MissingContextError("A fetch must run in a flow run.")
    return flow_run_logger(context.flow_run, context.flow)


async def _this_run(prefect: Prefect, force: bool) -> FetchRun:
    run = await prefect.read_run(UUID(runtime.flow_run.id))
    triggered_by, _ = await origin_of(prefect, EVERY_DOMAIN, run)
    return FetchRun(
        run_id=run.id,
        trigger=FetchTrigger(trigger_of(run).value),
        triggered_by=triggered_by,
        force=force,
        execution_id=run.infrastructure_pid or f"{socket.gethostname()}:{os.getpid()}",
    )


async def _show(fetch: OpenFetch, result: FetchResult) -> None:
    """Show the result in Prefect's UI: as a table artifact, and invalid rows in the log."""
    row = {
        "source": fetch.source_name,
        "status": result.status,
        "bytes": result.bytes_fetched,
        "rows": result.rows_parsed,
        "bad rows": result.bad_rows,
        "SHA-256": result.content_hash,
        "changed": "yes" if result.content_changed else "no",
    }
    try:
        await acreate_table_artifact(
            key=f"fetch-{re.sub('[^a-z0-9]+', '-', fetch.source_name.lower()).strip('-') or fetch.source_id.lower()}",
            table=[{"what": name, "value": "" if value is None else str(value)} for name, value in row.items()],
            description=f"Fetch {fetch.fetch_id} of the source {fetch.source_name}.",
        )
    except Exception:
        # The fetch has succeeded, and Spine's API shows the same values.
        _flow_logger().warning("Prefect did not accept the artifact of this fetch.", exc_info=True)
    if result.bad_rows:
        examples = [dict(example) for example in result.bad_row_examples[:3]]
        _flow_logger().warning("Skipped %d invalid rows; the first: %s", result.bad_rows, examples)
