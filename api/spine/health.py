"""`/health/live` and `/health/ready`, for supervisors and load balancers; no credential needed."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from spine.health_checks import Components, check_components
from spine.http.dependencies import PrefectDep, SessionsDep, SettingsDep

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


@router.get("/ready", operation_id="health_ready", responses={503: {"model": Readiness}})
async def ready(response: Response, prefect: PrefectDep, sessions: SessionsDep, settings: SettingsDep) -> Readiness:
    """Report the health of each component. 503 if one of them is down, 200 if one is degraded."""
    components = await check_components(prefect, sessions, settings)
    states = components.states()
    response.status_code = 503 if "down" in states else 200
    status = "not_ready" if "down" in states else "degraded" if "degraded" in states else "ready"
    return Readiness(status=status, **dict(components))
