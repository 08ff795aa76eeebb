"""Who may speak to Prefect's server: a check of `Host` and `Origin`, and a page that logs a browser in.

Prefect's own credential (`PREFECT_SERVER_API_AUTH_STRING`) keeps out callers who do not have it. The checks here keep
out web pages that an operator's browser has open: a name that resolves to this machine only for the attack (DNS
rebinding) is not in `Host`'s list, and a page of another origin is refused before Prefect reads its request, also over
a WebSocket, to which CORS does not apply.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
from prefect.settings import get_current_settings

from spine.prefect_server.login import LOGIN_PATH, LoginPage

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = "SPINE_PREFECT_HOSTS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 (compared, not bound)
# Browsers let no page of another origin read their answers, and they change nothing.
_READING = ("GET", "HEAD", "OPTIONS")
ANY_ORIGIN = "*"


@dataclass(frozen=True)
class Doors:
    """An ASGI application in front of Prefect's, which refuses hosts and origins that are not listed."""

    app: App
    hosts: frozenset[str]
    origins: frozenset[str]
    page: LoginPage | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif reason := self._refusal(scope):
            await _refuse(scope, receive, send, reason)
        elif self.page is not None and scope["type"] == "http" and scope["path"] == LOGIN_PATH:
            await self.page.send(send, scope["method"])
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        hosts = _values(scope, b"host")
        if not hosts or any(_name_of(host) not in self.hosts for host in hosts):
            return f"This server does not accept this host name; add the name to {HOSTS} to allow it."
        if ANY_ORIGIN in self.origins or (scope["type"] == "http" and scope["method"] in _READING):
            return None
        own = {*self.origins, *(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))}
        if any(origin not in own for origin in _values(scope, b"origin")):
            return "Pages of this origin may not use this server."
        return None


def behind_doors(app: App, host: str | None, environ: Mapping[str, str] = os.environ) -> Doors:
    """Prefect's application behind the checks, for a server that listens on `host`."""
    settings = get_current_settings()
    urls = (settings.api.url, settings.ui_url, settings.server.ui.api_url)
    hosts = allowed_hosts(host or settings.server.api.host, urls, environ.get(HOSTS, ""))
    origins = frozenset(one.strip().rstrip("/") for one in settings.server.api.cors_allowed_origins.split(","))
    secret = settings.server.api.auth_string
    api = settings.server.ui.api_url or settings.server.api.base_path or "/api"
    page = LoginPage.of(api, settings.server.ui.serve_base) if secret else None
    return Doors(app, hosts, origins, page)


def allowed_hosts(host: str, urls: Iterable[str | None], more: str) -> frozenset[str]:
    """The names in `Host` of a server that listens on `host`: its own, those of its URLs, and `more`, with commas.

    A server that listens on every address also has the addresses and the names of this machine.
    """
    names = {*LOOPBACK, host, *(urlsplit(url).hostname or "" for url in urls if url)}
    names |= {_name_of(name.strip()) for name in more.split(",")}
    if host in _EVERY_ADDRESS:
        found = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
        names |= {address.address.partition("%")[0] for address in found}
        names |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in names) - set(_EVERY_ADDRESS)


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for name, value in scope["headers"] if name == header]


def _name_of(host: str) -> str:
    """The name in a `Host` header, without its port; an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, this answers the upgrade with 403.
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(reason)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
