"""`/metrics`; no credential needed."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from spine.http.dependencies import PrefectDep, SessionsDep, SettingsDep
from spine.measures import own_registry
from spine.metrics.families import OwnState, SharedState
from spine.metrics.readings import read_all

router = APIRouter(tags=["health"])


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(request: Request, prefect: PrefectDep, sessions: SessionsDep, settings: SettingsDep) -> Response:
    """Show what this process has counted, and the state of what all processes share, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(SharedState(await read_all(sessions, prefect, settings)))
    registry.register(OwnState(sessions, leads=request.app.state.follower.leads()))
    text = generate_latest(own_registry()) + generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
