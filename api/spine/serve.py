"""`spine serve`: the API in this process, with limits on connections."""

import gc
import signal
import sys
import time
from collections.abc import Callable
from socket import socket
from types import FrameType
from typing import Any

import typer
import uvicorn
from uvicorn.config import LOGGING_CONFIG

from spine.http.connections import ConnectionLimits, bounded_http
from spine.imports import importing
from spine.settings import Settings, get_settings

APPLICATION = "spine.main:create_app"
# A body of the largest allowed size may arrive this slowly, in bytes a second.
SLOWEST_BODY = 50_000


def serve_api(host: str, port: int, grace_seconds: int, drain_seconds: int = 0) -> None:
    """Serve until a signal; exits with an error if the settings are invalid or the server cannot start."""
    try:
        settings = get_settings()
    except ValueError as error:
        typer.echo(f"The settings are invalid: {error}", err=True)
        sys.exit(1)
    config = server_config(APPLICATION, settings, host=host, port=port, grace_seconds=grace_seconds)
    with importing():
        config.load()
    server = Server(config, drain_seconds)
    server.run()
    if not server.started:
        # As uvicorn's own command does.
        sys.exit(3)


class Server(uvicorn.Server):
    """uvicorn's server, which drains before it stops.

    After the first SIGTERM it serves for `drain_seconds` more, while its health check reports that it stops. Any second
    signal ends that time. Its garbage collector does not look through what is there for good.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: int = 0) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._stops_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or stop."""
        begins_to_drain = sig == signal.SIGTERM and self._drain_seconds > 0 and not self._is_stopping()
        super().handle_exit(sig, frame)
        if begins_to_drain:
            self.should_exit = False
            self._stops_at = time.monotonic() + self._drain_seconds
            application: Any = self.config.loaded_app
            application.state.draining.begin()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; called ten times a second."""
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _is_stopping(self) -> bool:
        return self.should_exit or self._stops_at is not None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to serve. A full collection of all that was imported would later stop every request for 0.1 s."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


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
