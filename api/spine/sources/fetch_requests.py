"""Ask for a fetch: written down first, then started as a run of `spine.fetch_source`."""

from spine.auth.callers import Caller
from spine.database import SessionFactory
from spine.errors import Conflict, NotFound, SpineError, Unavailable
from spine.prefect.client import Deployment, Prefect
from spine.sources.asking import Asked, ask, record_run
from spine.sources.fetch_results import Ending
from spine.sources.fetch_state import end
from spine.sources.schemas import FetchStartStatus, FetchTrigger, FetchTriggerResponse
from spine.tables.sources import RUNNING
from spine.workflows.deployments import find_workflow
from spine.workflows.labels import API_TAG, CALLER_LABEL

FETCH_FLOW = "spine.fetch_source"
SOURCE_TAG_PREFIX = "source:"


def source_tag(source_name: str) -> str:
    """By this runs of a source are found in Prefect's UI."""
    return SOURCE_TAG_PREFIX + source_name


async def request_fetch(
    prefect: Prefect, sessions: SessionFactory, caller: Caller, id_or_name: str, *, force: bool, operation_id: str
) -> FetchTriggerResponse:
    """Start a fetch, or join the one that is under way; safe to repeat with the same `operation_id`.

    Raises `NotFound`, `Conflict` for a source that is disabled, and `Unavailable`; when it cannot be started, its row
    says why.
    """
    asked = await ask(sessions, id_or_name, operation_id, by=caller.name, trigger=FetchTrigger.API, force=force)
    if asked.joined:
        if not asked.is_started:
            # Whoever asked for it may be gone; if not, both start the same run.
            await _start(prefect, sessions, caller, asked)
        return _answer(asked, "A fetch of it was under way already; this is that one.")
    try:
        run_name = await _start(prefect, sessions, caller, asked)
    except SpineError as reason:
        failure = Ending(error=f"It could not be started: {reason.detail}", error_category="ORCHESTRATION")
        await end(sessions, asked.fetch_id, failure)
        raise
    return _answer(asked, f"Run {run_name!r} was created and waits for a worker.")


async def find_fetch_flow(prefect: Prefect) -> Deployment:
    """The deployment that fetches run on. Raises `Unavailable` when it was not deployed."""
    try:
        return await find_workflow(prefect, FETCH_FLOW)
    except (NotFound, Conflict):
        raise Unavailable(
            f"The flow {FETCH_FLOW!r} is not deployed; run `prefect deploy --all` in Spine's folder."
        ) from None


async def _start(prefect: Prefect, sessions: SessionFactory, caller: Caller, asked: Asked) -> str:
    deployment = await find_fetch_flow(prefect)
    run = await prefect.create_run(
        deployment.id,
        parameters={"source": asked.source_id, "force": asked.force, "fetch_id": asked.fetch_id},
        tags=[API_TAG, source_tag(asked.source_name)],
        labels={CALLER_LABEL: caller.name},
        idempotency_key=f"spine-{asked.fetch_id}",
    )
    await record_run(sessions, asked.fetch_id, run.id)
    return run.name


def _answer(asked: Asked, message: str) -> FetchTriggerResponse:
    status = FetchStartStatus.STARTED if asked.status == RUNNING else FetchStartStatus.PENDING
    return FetchTriggerResponse(
        fetch_id=asked.fetch_id,
        source_id=asked.source_id,
        source_name=asked.source_name,
        status=status,
        message=message,
    )
