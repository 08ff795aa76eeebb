"""The checks behind `/health/ready` and `spine doctor`: each part of Spine and what it needs."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.alerts.delivery_health import read_delivery_health
from spine.cache.failures import StoreMismatch
from spine.cache.storage_check import StorageCheck
from spine.database import SessionFactory, reading
from spine.deployment_report import read_report
from spine.egress.fetch_failure import FetchFailure
from spine.errors import NotFound, PrefectUnavailable, SpineError
from spine.log_throttle import Failing
from spine.oddities import ODDITIES
from spine.prefect.client import Prefect
from spine.run_history.lag import LONGEST_LAG, read_lag
from spine.secrets.key_check import OwnKey
from spine.settings import Settings
from spine.table_revisions import describe
from spine.tables.base import utc_now

SECONDS_FOR_A_CHECK = 3
# Deliveries are sent within a second of when they are due, unless their channel is slow.
LONGEST_DUE = timedelta(seconds=60)
# Workers repeat the event every ten minutes.
SINCE_WHEN_FALLBACKS_COUNT = timedelta(minutes=20)


class ComponentHealth(BaseModel):
    """The health of one component."""

    state: Literal["up", "degraded", "down"] = Field(description="Degraded: it works, but needs attention.")
    detail: str = Field(examples=["1 worker online in pool 'spine'"])
    since: datetime | None = Field(
        default=None,
        description="Since when it is in this state, as far as this process has seen it; null where it is not known.",
    )


class Components(BaseModel):
    """The health of each component."""

    prefect: ComponentHealth
    prefect_open: ComponentHealth = Field(
        description="Whether Prefect's API needs a credential. Degraded: it does not, and whoever reaches it can run "
        "code as the worker."
    )
    database: ComponentHealth
    worker: ComponentHealth
    alerts: ComponentHealth
    outbox: ComponentHealth = Field(
        description="Whether alerts are sent. Degraded: a delivery has been due for more than 60 s."
    )
    deployments: ComponentHealth
    follower: ComponentHealth = Field(
        description="Whether the outcomes of runs are recorded. Degraded: a run that ended more than 60 s ago is not "
        "recorded, no process follows, or a task of the follower fails."
    )
    cache: ComponentHealth = Field(
        description="Whether the cache of this process is that of the database. Down: it is another one, and this "
        "process deletes nothing. Degraded: its storage does not answer."
    )
    secrets: ComponentHealth = Field(
        description="Whether the secret key of this process is that of the database. Down: it is another one, and "
        "this process neither encrypts nor decrypts."
    )
    records: ComponentHealth = Field(
        description="Degraded: this process has met records within the last hour that it could not read or show as "
        "the others; they are set aside and named."
    )

    def states(self) -> set[str]:
        """The states that components are in."""
        return {component.state for _, component in self}


@dataclass(frozen=True)
class Own:
    """What belongs to a process and must belong to its database, too."""

    storage: StorageCheck
    key: OwnKey


async def check_components(
    prefect: Prefect, sessions: SessionFactory, settings: Settings, own: Own, failing: Sequence[Failing] = ()
) -> Components:
    """Check every component at once, each for at most three seconds; `failing` are tasks of this process's follower."""
    checks: dict[str, Coroutine[Any, Any, str | ComponentHealth]] = {
        "prefect": _check_prefect(prefect),
        "prefect_open": _check_prefect_open(prefect),
        "database": _check_database(sessions),
        "worker": _check_worker(prefect, settings.work_pool),
        "alerts": _check_alerts(sessions),
        "outbox": _check_outbox(sessions),
        "deployments": _check_deployments(prefect, settings.home),
        "follower": _check_follower(prefect, sessions, settings, failing),
        "cache": _check_cache(own.storage),
        "secrets": _check_secrets(own.key),
        "records": _check_records(),
    }
    found = await asyncio.gather(*(_bounded(check) for check in checks.values()))
    return Components(**dict(zip(checks, found, strict=True)))


async def _bounded(check: Coroutine[Any, Any, str | ComponentHealth]) -> ComponentHealth:
    try:
        found = await asyncio.wait_for(check, SECONDS_FOR_A_CHECK)
        return found if isinstance(found, ComponentHealth) else ComponentHealth(state="up", detail=found)
    except TimeoutError:
        return ComponentHealth(state="down", detail=f"no answer within {SECONDS_FOR_A_CHECK} s")
    except SpineError as error:
        return ComponentHealth(state="down", detail=error.detail)


async def _check_prefect(prefect: Prefect) -> str:
    await prefect.check()
    return "Prefect's API answers"


async def _check_prefect_open(prefect: Prefect) -> ComponentHealth:
    try:
        is_open = await prefect.answers_anyone()
    except PrefectUnavailable:
        return ComponentHealth(state="up", detail="Prefect's API did not answer a request without a credential")
    if is_open:
        return ComponentHealth(
            state="degraded",
            detail="Prefect's API is open: it needs no credential, so whoever reaches it can run code as the worker "
            "and read the Secret blocks. Set PREFECT_SERVER_API_AUTH_STRING on its server.",
        )
    return ComponentHealth(state="up", detail="Prefect's API needs a credential")


async def _check_database(sessions: SessionFactory) -> str:
    # Connections refuse older tables, and say so.
    async with reading(sessions) as session:
        revision = await session.scalar(text("SELECT version_num FROM alembic_version"))
    return f"the database answers; its tables have {describe(revision)}"


async def _check_alerts(sessions: SessionFactory) -> ComponentHealth:
    health = await read_delivery_health(sessions)
    return ComponentHealth(state="degraded" if health.is_degraded else "up", detail=health.summary)


async def _check_outbox(sessions: SessionFactory) -> ComponentHealth:
    health = await read_delivery_health(sessions)
    detail = f"{health.pending} deliveries pending"
    if health.overdue_seconds > LONGEST_DUE.total_seconds():
        detail += f", the first due for {health.overdue_seconds:.0f} s; check that a process sends alerts"
        return ComponentHealth(state="degraded", detail=detail)
    return ComponentHealth(state="up", detail=detail)


async def _check_cache(storage: StorageCheck) -> ComponentHealth:
    """Down only for another cache: without its storage everything but contents is served."""
    try:
        if await storage.answers(SECONDS_FOR_A_CHECK - 1):
            return ComponentHealth(state="up", detail="the cache is that of the database")
        detail = f"the storage of fetched content gave no answer within {SECONDS_FOR_A_CHECK - 1} s"
    except StoreMismatch as mismatch:
        return ComponentHealth(state="down", detail=mismatch.sentence)
    except FetchFailure as failure:
        detail = failure.sentence
    return ComponentHealth(state="degraded", detail=detail)


async def _check_deployments(prefect: Prefect, home: Path) -> ComponentHealth:
    """The deployments that `spine up` could not create; those that were deployed in another way since are left out."""
    report = read_report(home)
    if report is None:
        return ComponentHealth(state="up", detail="no prefect.yaml was deployed by spine up")
    if report.failed:
        wanted = {"deployments": {"name": {"any_": list(report.failed)}}}
        fixed = {found.name for found in await prefect.deployments(wanted) if found.updated > report.at}
        report = report.without(fixed)
    return ComponentHealth(state="degraded" if report.failed else "up", detail=report.summary())


async def _check_follower(
    prefect: Prefect, sessions: SessionFactory, settings: Settings, failing: Sequence[Failing]
) -> ComponentHealth:
    """Never down: requests are served without the follower, too."""
    try:
        async with asyncio.timeout(SECONDS_FOR_A_CHECK - 1):
            lag = await read_lag(prefect, sessions)
    except (SpineError, TimeoutError):
        return ComponentHealth(state="degraded", detail="how far the follower is behind cannot be read now")
    # A task that has failed for a moment is repeated.
    long_ago = utc_now() - LONGEST_LAG
    stuck = [f"{one.task} fails since {one.since:%Y-%m-%d %H:%M:%S} UTC: {one.reason}" for one in failing]
    if lag.is_stuck:
        reasons = "".join(f"; {reason}" for reason in stuck)
        detail = f"{lag.runs} ended runs are not recorded, the first for {lag.seconds:.0f} s{reasons}"
        return ComponentHealth(state="degraded", detail=detail)
    if any(one.since < long_ago for one in failing):
        return ComponentHealth(state="degraded", detail="; ".join(stuck))
    if not lag.is_followed and settings.follow_runs:
        return ComponentHealth(state="degraded", detail="no process follows runs now")
    if not lag.is_followed:
        return ComponentHealth(state="up", detail="this process does not follow runs (SPINE_FOLLOW_RUNS is false)")
    return ComponentHealth(state="up", detail=f"{lag.runs} ended runs are not recorded yet")


async def _check_secrets(key: OwnKey) -> str:
    await key.require()
    return "the secret key is that of the database"


async def _check_records() -> ComponentHealth:
    odd = ODDITIES.recent()
    since = odd[0].since if odd else None
    return ComponentHealth(state="degraded" if odd else "up", detail=ODDITIES.summary(), since=since)


async def _check_worker(prefect: Prefect, pool: str) -> ComponentHealth:
    try:
        workers = await prefect.online_workers(pool)
    except NotFound:
        raise NotFound(f"Prefect has no work pool named {pool!r}.") from None
    if not workers:
        raise NotFound(f"No worker is online in pool {pool!r}.")
    detail = f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'} online in pool {pool!r}"
    fallbacks = await prefect.worker_fallbacks(pool, utc_now() - SINCE_WHEN_FALLBACKS_COUNT)
    online = {worker.name for worker in workers}
    reasons = [f"{name} starts runs in a new interpreter: {why}" for name, why in fallbacks.items() if name in online]
    return ComponentHealth(state="degraded" if reasons else "up", detail="; ".join([detail, *reasons]))
