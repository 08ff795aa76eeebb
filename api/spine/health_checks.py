"""The checks behind `/health/ready` and `spine doctor`: each part of Spine and what it needs."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.alerts.delivery_health import read_delivery_health
from spine.database import SessionFactory, reading
from spine.deployment_report import read_report
from spine.errors import NotFound, PrefectUnavailable, SpineError
from spine.prefect.client import Prefect
from spine.settings import Settings

SECONDS_FOR_A_CHECK = 3


class ComponentHealth(BaseModel):
    """The health of one component."""

    state: Literal["up", "degraded", "down"] = Field(description="Degraded: it works, but needs attention.")
    detail: str = Field(examples=["1 worker online in pool 'spine'"])


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
    deployments: ComponentHealth

    def states(self) -> set[str]:
        """The states that components are in."""
        return {component.state for _, component in self}


async def check_components(prefect: Prefect, sessions: SessionFactory, settings: Settings) -> Components:
    """Check every component at once, each for at most three seconds."""
    checks: dict[str, Coroutine[Any, Any, str | ComponentHealth]] = {
        "prefect": _check_prefect(prefect),
        "prefect_open": _check_prefect_open(prefect),
        "database": _check_database(sessions),
        "worker": _check_worker(prefect, settings.work_pool),
        "alerts": _check_alerts(sessions),
        "deployments": _check_deployments(prefect, settings.home),
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
    async with reading(sessions) as session:
        await session.execute(text("SELECT 1"))
    return "the database answers"


async def _check_alerts(sessions: SessionFactory) -> ComponentHealth:
    health = await read_delivery_health(sessions)
    return ComponentHealth(state="degraded" if health.is_degraded else "up", detail=health.summary)


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


async def _check_worker(prefect: Prefect, pool: str) -> str:
    try:
        workers = await prefect.online_workers(pool)
    except NotFound:
        raise NotFound(f"Prefect has no work pool named {pool!r}.") from None
    if not workers:
        raise NotFound(f"No worker is online in pool {pool!r}.")
    return f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'} online in pool {pool!r}"
