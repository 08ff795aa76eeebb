"""`spine serve`: the API in this process, with limits on connections."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
import uvicorn
from uvicorn.config import LOGGING_CONFIG

from spine.http.connections import ConnectionLimits, bounded_http
from spine.settings import Settings, get_settings

APPLICATION = "spine.main:create_app"
# A body of the largest allowed size may arrive this slowly, in bytes a second.
SLOWEST_BODY = 50_000


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    grace_seconds: Annotated[int, typer.Option(help="How long requests may take to end when it is stopped.")] = 10,
) -> None:
    """Serve the API alone: no Prefect server, no worker, no migration of the database."""
    try:
        settings = get_settings()
    except ValueError as error:
        typer.echo(f"The settings are invalid: {error}", err=True)
        sys.exit(1)
    server = uvicorn.Server(server_config(APPLICATION, settings, host=host, port=port, grace_seconds=grace_seconds))
    server.run()
    if not server.started:
        # As uvicorn's own command does.
        sys.exit(3)


def server_config(
    application: str | Callable[[], Any],
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grace_seconds: int = 1,
    limits: ConnectionLimits | None = None,
    log_config: dict[str, Any] | None = LOGGING_CONFIG,
) -> uvicorn.Config:
    """The configuration of a server for the application that `application` makes; port 0 is any free one."""
    limits = limits or limits_for(settings)
    return uvicorn.Config(
        application,
        factory=True,
        host=host,
        port=port,
        http=bounded_http(limits),
        ws="none",
        timeout_keep_alive=int(limits.idle_seconds),
        # Open event streams would otherwise delay the end for as long as their clients want.
        timeout_graceful_shutdown=grace_seconds,
        # The application itself reads X-Forwarded-For, and only from the proxies in SPINE_TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        log_config=log_config,
        log_level="warning",
        access_log=False,
    )


def limits_for(settings: Settings) -> ConnectionLimits:
    """The limits on connections under these settings."""
    slowest = settings.max_body_bytes / SLOWEST_BODY
    return ConnectionLimits(body_seconds=max(ConnectionLimits.body_seconds, slowest), most=settings.max_connections)
