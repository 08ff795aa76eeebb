"""The application, which `spine serve` runs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version

import structlog
from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from spine import health, metrics
from spine.alerts.routes import router as alerts
from spine.alerts.runtime import Alerting
from spine.auth.jwt import JwtVerifier
from spine.auth.key_uses import KeyUses
from spine.auth.rate_limits import KeyLimit, WrongCredentials
from spine.cache.maintenance import CacheMaintenance
from spine.cache.store import BlobStore
from spine.connections.routes import router as connections
from spine.database import make_engine, make_sessions
from spine.egress.own_services import Listeners, own_endpoints, protected
from spine.http.credentials import Credentials
from spine.http.dependencies import get_caller
from spine.http.errors import install_error_handlers
from spine.http.gate import API, GateMiddleware, RouteTable
from spine.http.listeners import ListenerMiddleware
from spine.http.logs import configure_logging
from spine.http.middleware import BodyMiddleware, RequestIdMiddleware
from spine.http.openapi import install_openapi
from spine.prefect.client import Prefect
from spine.private_files import close_to_others
from spine.run_history.follower import Chore, Follower
from spine.schedules.listing import ScheduleListing
from spine.schedules.routes import router as schedules
from spine.schedules.watcher import ScheduleWatcher
from spine.settings import Settings, get_settings
from spine.sources.cache_routes import router as cache
from spine.sources.orphaned_fetches import OrphanedFetches
from spine.sources.routes import router as sources
from spine.workflows.known_domains import KnownDomains
from spine.workflows.routes import router as workflows

log = structlog.get_logger("spine.api")

DESCRIPTION = """
A stable API over Prefect: workflows (Prefect flows) and their runs, schedules (Prefect deployments), alerts and data
sources, with credentials, exact pages and clear errors.

Send an API key as `X-API-Key` or `Authorization: Bearer`. Make one with `spine keys create`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API with all its routes; connections are opened when it starts."""
    settings = settings or get_settings()
    configure_logging(settings.log_level)
    # FastAPI's own docs page would load its scripts from a public network.
    app = FastAPIOffline(
        title="Spine",
        version=version("prefect-spine"),
        summary="A control plane for data pipelines, native to Prefect.",
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.settings = settings
    listeners = app.state.listeners = Listeners()
    app.state.schedule_listing = ScheduleListing()
    app.state.known_domains = KnownDomains()
    app.dependency_overrides[get_settings] = lambda: settings
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(_api_v1())
    install_error_handlers(app)
    install_openapi(app)
    app.add_middleware(BodyMiddleware, max_bytes=settings.max_body_bytes)
    # The middleware that is added last comes first.
    app.add_middleware(GateMiddleware, routes=RouteTable(app.routes))
    app.add_middleware(RequestIdMiddleware, trusted_proxies=settings.trusted_proxies)
    app.add_middleware(ListenerMiddleware, listeners=listeners)
    return app


def _api_v1() -> APIRouter:
    """All routes of the contract, behind one credential check."""
    router = APIRouter(prefix=API, dependencies=[Depends(get_caller)])
    router.include_router(workflows)
    router.include_router(schedules)
    router.include_router(alerts)
    # These come before the sources, because `/sources/{source_id}` would match their paths.
    router.include_router(cache)
    router.include_router(connections)
    router.include_router(sources)
    return router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database and the client of Prefect. Both may be down: requests then return 503.

    Raises `NotPrivate` if other users can read the state folder and that cannot be changed.
    """
    settings: Settings = app.state.settings
    if closed := close_to_others(settings.home):
        log.warning("state_folder_closed", home=str(settings.home), entries=closed)
    engine = make_engine(settings.sqlalchemy_url)
    app.state.sessions = make_sessions(engine)
    key_uses = KeyUses(app.state.sessions)
    app.state.credentials = Credentials(
        sessions=app.state.sessions,
        verifier=_jwt_verifier(settings),
        key_uses=key_uses,
        wrong=WrongCredentials(settings.wrong_keys_per_minute),
        key_limit=KeyLimit(settings.requests_per_minute),
    )
    try:
        async with Prefect.connect(settings.prefect_deadline_seconds) as prefect:
            app.state.prefect = prefect
            alerting = app.state.alerting = Alerting(settings, app.state.sessions, prefect)
            after_ingest: list[Chore] = [OrphanedFetches(alerting.dispatcher.wake), *alerting.after_ingest]
            follower = Follower(prefect, app.state.sessions, [ScheduleWatcher(), *alerting.chores], after_ingest)
            store = app.state.cache_store = BlobStore.from_settings(settings)
            maintenance = CacheMaintenance(app.state.sessions, store, settings.cache_max_bytes)
            following = follower.running() if settings.follow_runs else nullcontext()
            with protected(own_endpoints(settings, prefect.api_url, os.environ)):
                async with key_uses.running(), alerting.running(), maintenance.running(), following:
                    yield
    finally:
        app.state.listeners.close()
        await engine.dispose()


def _jwt_verifier(settings: Settings) -> JwtVerifier | None:
    if not (settings.jwks_url and settings.jwt_issuer and settings.jwt_audience):
        return None
    return JwtVerifier(settings.jwks_url, settings.jwt_issuer, settings.jwt_audience)
