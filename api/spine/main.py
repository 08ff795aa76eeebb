"""The application, which `spine serve` runs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version

import structlog
from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from spine import health
from spine.administration.routes import router as administration
from spine.alerts.routes import router as alerts
from spine.alerts.runtime import Alerting
from spine.audit.trail import Trail
from spine.auth.bootstrap import activating_admin_key
from spine.auth.jwt import JwtVerifier
from spine.auth.key_uses import KeyUses
from spine.auth.rate_limits import KeyLimit, WrongCredentials
from spine.auth.service import KeyChecks
from spine.cache.maintenance import CacheMaintenance
from spine.cache.storage_check import StorageCheck
from spine.cache.store import BlobStore
from spine.connections.routes import router as connections
from spine.database import SessionFactory, make_engine, make_sessions
from spine.egress.own_services import Listeners, own_endpoints, protected
from spine.http.credentials import Credentials
from spine.http.dependencies import get_caller
from spine.http.draining import Draining, DrainingMiddleware
from spine.http.errors import install_error_handlers
from spine.http.gate import API, GateMiddleware, RouteTable
from spine.http.listeners import ListenerMiddleware
from spine.http.logs import configure_logging
from spine.http.middleware import BodyMiddleware, RequestIdMiddleware
from spine.http.openapi import install_openapi
from spine.metrics.routes import router as metrics
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
from spine.tracing import exporting
from spine.workflows.known_domains import KnownDomains
from spine.workflows.known_workflows import KnownWorkflows
from spine.workflows.lost_runs import LostRuns
from spine.workflows.mixed_children import MixedChildren
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
    draining = app.state.draining = Draining()
    app.state.schedule_listing = ScheduleListing()
    app.state.known_domains = KnownDomains()
    app.state.known_workflows = KnownWorkflows()
    app.state.seen_health = {}
    app.include_router(health.router)
    app.include_router(metrics)
    # With a prefix on the router itself, FastAPI would build every route once more to check its path.
    app.include_router(_api_v1(), prefix=API)
    install_error_handlers(app)
    install_openapi(app)
    app.add_middleware(BodyMiddleware, max_bytes=settings.max_body_bytes)
    # The middleware that is added last comes first.
    app.add_middleware(GateMiddleware, routes=RouteTable(app.routes))
    app.add_middleware(RequestIdMiddleware, trusted_proxies=settings.trusted_proxies)
    app.add_middleware(ListenerMiddleware, listeners=listeners)
    app.add_middleware(DrainingMiddleware, draining=draining)
    return app


def _api_v1() -> APIRouter:
    """All routes of the contract, behind one credential check."""
    router = APIRouter(dependencies=[Depends(get_caller)])
    router.include_router(workflows)
    router.include_router(schedules)
    router.include_router(alerts)
    # These come before the sources, because `/sources/{source_id}` would match their paths.
    router.include_router(cache)
    router.include_router(connections)
    router.include_router(sources)
    router.include_router(administration)
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
    app.state.trail = Trail(app.state.sessions)
    key_uses = KeyUses(app.state.sessions)
    app.state.credentials = Credentials(
        key_checks=KeyChecks(app.state.sessions),
        verifier=_jwt_verifier(settings),
        key_uses=key_uses,
        wrong=WrongCredentials(settings.wrong_keys_per_minute),
        key_limit=KeyLimit(settings.requests_per_minute),
    )
    try:
        async with Prefect.connect(settings.prefect_deadline_seconds) as prefect:
            app.state.prefect = prefect
            alerting = app.state.alerting = Alerting(settings, app.state.sessions, prefect)
            app.state.own_key = alerting.own_key
            app.state.draining.also(alerting.dispatcher.stop_leasing)
            app.state.follower = _follower(prefect, app.state.sessions, alerting)
            store = app.state.cache_store = BlobStore.from_settings(settings)
            app.state.storage_check = StorageCheck(app.state.sessions, store)
            maintenance = app.state.cache_maintenance = CacheMaintenance(
                app.state.sessions, store, settings.cache_max_bytes
            )
            following = _following(app) if settings.follow_runs else nullcontext()
            with exporting(), protected(own_endpoints(settings, prefect.api_url, os.environ)):
                async with (
                    activating_admin_key(app.state.sessions, settings),
                    key_uses.running(),
                    alerting.running(),
                    maintenance.running(),
                    following,
                ):
                    yield
    finally:
        app.state.listeners.close()
        await engine.dispose()


def _follower(prefect: Prefect, sessions: SessionFactory, alerting: Alerting) -> Follower:
    """What records the outcomes of runs and does the other chores that watch Prefect."""
    chores: list[Chore] = [ScheduleWatcher(), LostRuns(), *alerting.chores]
    after_ingest: list[Chore] = [OrphanedFetches(alerting.dispatcher.wake), *alerting.after_ingest]
    return Follower(prefect, sessions, chores, after_ingest, MixedChildren().check)


@asynccontextmanager
async def _following(app: FastAPI) -> AsyncIterator[None]:
    """Everything that listens to Prefect's events."""
    known: KnownWorkflows = app.state.known_workflows
    follower: Follower = app.state.follower
    async with known.running(), follower.running():
        yield


def _jwt_verifier(settings: Settings) -> JwtVerifier | None:
    if not (settings.jwks_url and settings.jwt_issuer and settings.jwt_audience):
        return None
    return JwtVerifier(settings.jwks_url, settings.jwt_issuer, settings.jwt_audience)
