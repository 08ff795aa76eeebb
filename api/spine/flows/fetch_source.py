"""`spine.fetch_source`: bring the content of a registered source into the cache."""

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

from spine.egress.fetch_failure import FetchFailure
from spine.errors import Unavailable
from spine.prefect.client import Prefect
from spine.sources.fetch_state import Beginning, Begun, begin
from spine.sources.fetching.context import open_fetch_context
from spine.sources.fetching.fetcher import Outcome, fetch, record_failure
from spine.sources.schemas import FetchTrigger
from spine.workflows.labels import trigger_of
from spine.workflows.run_detail import origin_of


class Fetched(TypedDict):
    """The result of a fetch. ``capture_id`` names the content: its SHA-256 in hex."""

    fetch_id: str
    status: str
    capture_id: str
    bytes_fetched: int
    rows_processed: int | None


async def _may_go_well_later(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
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
    retry_condition_fn=_may_go_well_later,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def fetch_content(begun: Begun, force: bool) -> Outcome:
    """Read the source when it is this fetch's turn, and put what has changed into the cache."""
    async with open_fetch_context() as context:
        return await fetch(context, begun, force=force, tell=get_run_logger().info)


@flow(name="spine.fetch_source", persist_result=True, result_serializer="json")
async def fetch_source(source: str, force: bool = False, fetch_id: str | None = None) -> Fetched:
    """Fetch a registered source into the cache, if it has changed.

    Args:
        source: The source's id or name.
        force: Read it also when it says that nothing has changed.
        fetch_id: The fetch that this run was started for; leave it out to make a new one.
    """
    async with open_fetch_context() as context:
        begun = await begin(context.sessions, source, fetch_id, await _beginning(context.prefect, force))
        _own_log().info("Fetch %s of the source %s.", begun.fetch_id, begun.source_name)
        try:
            async with context.leased(begun.fetch_id):
                outcome = await fetch_content(begun, force)
        except Exception as error:
            await record_failure(context, begun, error)
            raise
    await _show(begun, outcome)
    return Fetched(
        fetch_id=begun.fetch_id,
        status=outcome.status,
        capture_id=outcome.content_hash,
        bytes_fetched=outcome.bytes_fetched,
        rows_processed=outcome.rows_parsed,
    )


def _own_log() -> LoggerAdapter[Logger]:
    """The log of this run: where a task has called it, `get_run_logger` gives the log of that task."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise MissingContextError("A fetch is a run of a flow.")
    return flow_run_logger(context.flow_run, context.flow)


async def _beginning(prefect: Prefect, force: bool) -> Beginning:
    run = await prefect.read_run(UUID(runtime.flow_run.id))
    triggered_by, _ = await origin_of(prefect, run)
    return Beginning(
        run_id=run.id,
        trigger=FetchTrigger(trigger_of(run).value),
        triggered_by=triggered_by,
        force=force,
        execution_id=run.infrastructure_pid or f"{socket.gethostname()}:{os.getpid()}",
    )


async def _show(begun: Begun, outcome: Outcome) -> None:
    """Leave what came of it in Prefect's UI."""
    row = {
        "source": begun.source_name,
        "status": outcome.status,
        "bytes": outcome.bytes_fetched,
        "rows": outcome.rows_parsed,
        "bad rows": outcome.bad_rows,
        "SHA-256": outcome.content_hash,
        "changed": "yes" if outcome.content_changed else "no",
    }
    try:
        await acreate_table_artifact(
            key=f"fetch-{re.sub('[^a-z0-9]+', '-', begun.source_name.lower()).strip('-') or begun.source_id.lower()}",
            table=[{"what": name, "value": "" if value is None else str(value)} for name, value in row.items()],
            description=f"Fetch {begun.fetch_id} of the source {begun.source_name}.",
        )
    except Exception:
        # The fetch has ended well, and Spine shows the same.
        _own_log().warning("Prefect did not take the artifact of this fetch.", exc_info=True)
    if outcome.bad_rows:
        _own_log().warning("%d rows were left out; the first: %s", outcome.bad_rows, list(outcome.bad_row_examples[:3]))
