"""Requests for a fetch: recorded first, then started as a run of `spine.fetch_source`."""

from contextlib import suppress
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.audit.trail import forget, record
from spine.auth.callers import Caller
from spine.auth.domains import EVERY_DOMAIN, Domains
from spine.database import SessionFactory, transaction
from spine.errors import Conflict, NotFound, SpineError, Unavailable
from spine.names import DOMAIN_TAG_PREFIX
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.schemas import ErrorCategory
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import OpenFetch, disabled, finish_fetch, lease_has_expired
from spine.sources.queries import find_source
from spine.sources.schemas import FetchStartStatus, FetchTrigger, FetchTriggerResponse
from spine.tables.base import utc_now
from spine.tables.sources import OPEN, PENDING, RUNNING, Fetch, Source
from spine.workflows.known_workflows import KnownWorkflows
from spine.workflows.labels import API_TAG, CALLER_LABEL

FETCH_FLOW = "spine.fetch_source"
SOURCE_TAG_PREFIX = "source:"


def source_tag(source_name: str) -> str:
    """The tag of all runs of a source, by which Prefect's UI can filter."""
    return SOURCE_TAG_PREFIX + source_name


def source_tags(source_name: str, domain: str | None) -> list[str]:
    """The tags of the runs of a source: its name, and its domain if it has one."""
    return [source_tag(source_name), *([f"{DOMAIN_TAG_PREFIX}{domain}"] if domain else [])]


async def request_fetch(
    prefect: Prefect,
    sessions: SessionFactory,
    caller: Caller,
    id_or_name: str,
    *,
    force: bool,
    operation_id: str,
    known: KnownWorkflows,
) -> FetchTriggerResponse:
    """Start a fetch, or join one that is in progress; safe to repeat with the same `operation_id`.

    Raises `NotFound`, `Conflict` for a source that is disabled, and `Unavailable`, after which there is no fetch: the
    client repeats the request. A fetch that could not be started for another reason has FAILED, and its row says why.
    """
    fetch = await record_request(
        sessions, id_or_name, operation_id, by=caller.name, force=force, domains=caller.domains
    )
    if fetch.fetch_id != operation_id:
        if fetch.run_id is None:
            # The process that recorded it may be gone. If it is not, both create the same run, by its idempotency key.
            await _create_run(prefect, sessions, known, caller, fetch)
        return _response(fetch, "A fetch of this source is already in progress; this request joined it.")
    try:
        run_name = await _create_run(prefect, sessions, known, caller, fetch)
    except Unavailable:
        await _forget(sessions, fetch.fetch_id)
        raise
    except SpineError as reason:
        error = f"The fetch could not be started: {reason.detail}"
        await finish_fetch(
            sessions, fetch.fetch_id, FetchResult(error=error, error_category=ErrorCategory.ORCHESTRATION)
        )
        raise
    return _response(fetch, f"Run {run_name!r} was created and waits for a worker.")


async def record_request(
    sessions: SessionFactory,
    id_or_name: str,
    fetch_id: str,
    *,
    by: str,
    force: bool,
    domains: Domains = EVERY_DOMAIN,
) -> OpenFetch:
    """Record a PENDING fetch with this id, or find one in progress that serves the request; safe to repeat.

    Raises `NotFound`, and `Conflict` for a source that is disabled.
    """
    async with transaction(sessions) as session:
        source = await find_source(session, domains, id_or_name, to_change=True)
        if not source.enabled:
            raise disabled(source)
        fetch = await session.get(Fetch, fetch_id) or await _find_joinable(session, source, force)
        if fetch is None:
            api = FetchTrigger.API.value
            fetch = Fetch(
                id=fetch_id,
                source_id=source.id,
                trigger=api,
                triggered_by=by,
                force=force,
                status=PENDING,
            )
            session.add(fetch)
            after = {"source": source.id, "force": force}
            await record(session, "started", "fetch", fetch_id, source.name, after=after, operation_id=fetch_id)
        elif fetch.id == fetch_id and fetch.run_id is None:
            # An earlier attempt to start it has failed.
            fetch.status, fetch.error, fetch.error_category = PENDING, None, None
        return OpenFetch.from_rows(fetch, source)


async def _forget(sessions: SessionFactory, fetch_id: str) -> None:
    """Delete a fetch that was not started. If Prefect created its run all the same, the run records the fetch again."""
    async with transaction(sessions) as session:
        not_started = (Fetch.id == fetch_id, Fetch.status == PENDING, Fetch.run_id.is_(None))
        if await session.scalar(delete(Fetch).where(*not_started).returning(Fetch.id)) is not None:
            await forget(session, fetch_id)


async def _find_joinable(session: AsyncSession, source: Source, force: bool) -> Fetch | None:
    """A fetch in progress whose result serves this request.

    Not one whose lease has expired, which may never end, and not one that started before the source was changed.
    """
    mine = select(Fetch).where(Fetch.source_id == source.id, Fetch.status.in_(OPEN)).order_by(Fetch.id)
    now, versions = utc_now(), (None, source.config_version)
    for fetch in (await session.scalars(mine.with_for_update())).all():
        if not lease_has_expired(fetch, now) and (fetch.force or not force) and fetch.config_version in versions:
            return fetch
    return None


async def record_run(sessions: SessionFactory, fetch_id: str, run_id: UUID) -> None:
    """Record the flow run that was created for a fetch."""
    async with transaction(sessions) as session:
        await session.execute(update(Fetch).where(Fetch.id == fetch_id).values(run_id=run_id))


async def find_fetch_flow(prefect: Prefect, known: KnownWorkflows | None = None) -> Deployment:
    """The deployment that fetches run on, which `known` remembers. Raises `Unavailable` when there is none."""
    try:
        return await (known or KnownWorkflows()).find(prefect, EVERY_DOMAIN, FETCH_FLOW)
    except (NotFound, Conflict):
        raise Unavailable(f"The flow {FETCH_FLOW!r} is not deployed; run `spine deploy`.") from None


async def _create_run(
    prefect: Prefect, sessions: SessionFactory, known: KnownWorkflows, caller: Caller, fetch: OpenFetch
) -> str:
    async def create(deployment_id: UUID) -> FlowRun:
        return await prefect.create_run(
            deployment_id,
            parameters={"source": fetch.source_id, "force": fetch.force, "fetch_id": fetch.fetch_id},
            tags=[API_TAG, *source_tags(fetch.source_name, fetch.domain)],
            labels={CALLER_LABEL: caller.name},
            idempotency_key=f"spine-{fetch.fetch_id}",
        )

    run: FlowRun | None = None
    if (known_id := known.id_of(FETCH_FLOW)) is not None:
        with suppress(NotFound):
            # The parameters are Spine's own, so only whether the deployment still exists matters.
            run = await create(known_id)
    if run is None:
        run = await create((await find_fetch_flow(prefect, known)).id)
    await record_run(sessions, fetch.fetch_id, run.id)
    return run.name


def _response(fetch: OpenFetch, message: str) -> FetchTriggerResponse:
    return FetchTriggerResponse(
        fetch_id=fetch.fetch_id,
        source_id=fetch.source_id,
        source_name=fetch.source_name,
        status=FetchStartStatus.STARTED if fetch.status == RUNNING else FetchStartStatus.PENDING,
        message=message,
    )
