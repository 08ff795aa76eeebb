"""`/health/live` and `/health/ready`, for supervisors and load balancers; no credential needed."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from spine.health_checks import Components, Own, check_components
from spine.http.dependencies import PrefectDep, SessionsDep, SettingsDep
from spine.tables.base import utc_now

router = APIRouter(prefix="/health", tags=["health"])


class Liveness(BaseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


class Readiness(Components):
    """Whether this process can serve requests."""

    status: Literal["ready", "degraded", "not_ready"] = Field(description="Degraded: a part needs attention.")


@router.get("/live", operation_id="health_live")
async def live() -> Liveness:
    """Report that the process is up, without checking anything else."""
    return Liveness()


class Serving(BaseModel):
    """Whether this process takes requests."""

    status: Literal["serving", "stopping"]


@router.get("/serving", operation_id="health_serving", responses={503: {"model": Serving}})
async def serving(request: Request, response: Response) -> Serving:
    """Report whether a proxy may send requests to this process: 503 as soon as it begins to stop.

    It checks nothing else: while Prefect or the database is down, requests are answered with the reason.
    """
    if not request.app.state.draining.is_on:
        return Serving(status="serving")
    response.status_code = 503
    return Serving(status="stopping")


@router.get("/ready", operation_id="health_ready", responses={503: {"model": Readiness}})
async def ready(
    request: Request, response: Response, prefect: PrefectDep, sessions: SessionsDep, settings: SettingsDep
) -> Readiness:
    """Report the health of each component. 503 if one of them is down or this process stops, 200 if one is degraded."""
    state = request.app.state
    own = Own(state.storage_check, state.own_key)
    components = await check_components(prefect, sessions, settings, own, state.follower.failing())
    _remember(request, components)
    states = components.states()
    is_down = "down" in states or request.app.state.draining.is_on
    response.status_code = 503 if is_down else 200
    status = "not_ready" if is_down else "degraded" if "degraded" in states else "ready"
    return Readiness(status=status, **dict(components))


def _remember(request: Request, components: Components) -> None:
    """Set since when this process has seen each component in its state."""
    seen: dict[str, tuple[str, datetime]] = request.app.state.seen_health
    for name, component in components:
        if name not in seen or seen[name][0] != component.state:
            seen[name] = (component.state, utc_now())
        component.since = component.since or seen[name][1]
