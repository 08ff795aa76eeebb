"""`/health/live` and `/health/ready`, for supervisors and load balancers; no credential needed."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.alerts.delivery_health import read_delivery_health
from spine.database import SessionFactory, reading
from spine.deployment_report import read_report
from spine.errors import NotFound, SpineError
from spine.http.dependencies import PrefectDep, SessionsDep, SettingsDep
from spine.prefect.client import Prefect

router = APIRouter(prefix="/health", tags=["health"])

SECONDS_FOR_A_CHECK = 3


class ComponentHealth(BaseModel):
    """The health of one component."""

    state: Literal["up", "degraded", "down"] = Field(description="Degraded: it works, but needs attention.")
    detail: str = Field(examples=["1 worker online in pool 'spine'"])


class Liveness(BaseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether this process can serve requests."""

    status: Literal["ready", "degraded", "not_ready"] = Field(description="Degraded: a part needs attention.")
    prefect: ComponentHealth
    database: ComponentHealth
    worker: ComponentHealth
    alerts: ComponentHealth
    deployments: ComponentHealth


@router.get("/live", operation_id="health_live")
async def live() -> Liveness:
    """Report that the process is up, without checking anything else."""
    return Liveness()


@router.get("/ready", operation_id="health_ready", responses={503: {"model": Readiness}})
async def ready(response: Response, prefect: PrefectDep, sessions: SessionsDep, settings: SettingsDep) -> Readiness:
    """Report the health of each component. 503 if one of them is down, 200 if one is degraded."""
    components = await asyncio.gather(
        _bounded(_check_prefect(prefect)),
        _bounded(_check_database(sessions)),
        _bounded(_check_worker(prefect, settings.work_pool)),
        _bounded(_check_alerts(sessions)),
        _bounded(_check_deployments(prefect, settings.home)),
    )
    states = {component.state for component in components}
    response.status_code = 503 if "down" in states else 200
    return Readiness(
        status="not_ready" if "down" in states else "degraded" if "degraded" in states else "ready",
        prefect=components[0],
        database=components[1],
        worker=components[2],
        alerts=components[3],
        deployments=components[4],
    )


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
