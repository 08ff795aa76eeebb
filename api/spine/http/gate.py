"""What is checked before a request's body is read: the credential, the method, the scope.

FastAPI reads and parses the body before it calls any dependency, so these checks are middleware, in plain ASGI.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from re import Pattern

import structlog
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.requests import Request
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spine.actors import Actor
from spine.audit.trail import acting_as
from spine.auth.callers import Caller
from spine.errors import NotFound, SpineError
from spine.http.dependencies import authenticate, check_scope
from spine.http.errors import answer_of, method_not_allowed
from spine.http.middleware import ROUTE

# Every path below it needs a credential.
API = "/api/v1"


class RouteTable:
    """The routes of each path. A path without parameters wins over one with parameters that it also matches."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._literal: dict[str, dict[str, RouteContext]] = {}
        self._patterns: dict[str, tuple[Pattern[str], dict[str, RouteContext]]] = {}
        for route in iter_route_contexts(list(routes)):
            if not (route.path and route.methods):
                continue
            pattern, _, parameters = compile_path(route.path)
            methods: dict[str, RouteContext] = {}
            if parameters:
                _, methods = self._patterns.setdefault(route.path, (pattern, methods))
            else:
                methods = self._literal.setdefault(route.path, methods)
            for method in route.methods:
                methods.setdefault(method, route)

    def routes_of(self, path: str) -> dict[str, RouteContext]:
        """The routes of this path by their method, without HEAD where only GET is declared; empty if it is unknown."""
        if path in self._literal:
            return self._literal[path]
        found: dict[str, RouteContext] = {}
        for pattern, methods in self._patterns.values():
            if pattern.match(path):
                found = {**methods, **found}
        return found


class GateMiddleware:
    """Check the credential (401), the method (405) and the scope (403), and answer HEAD wherever there is GET."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that passes; the caller is in `request.state.caller`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        routes = self.routes.routes_of(path)
        is_head_of_get = method == "HEAD" and "HEAD" not in routes and "GET" in routes
        route = routes.get("GET" if is_head_of_get else method)
        scope[ROUTE] = route.path if route else None
        try:
            caller = await self._caller(scope, path)
            # Starlette's patterns also match before a final line break, which no path of ours has.
            if not path.isprintable():
                raise NotFound("The path has characters that no path of this API has.")
            if routes and route is None:
                allowed = {*routes, "HEAD"} if "GET" in routes else set(routes)
                await method_not_allowed(allowed)(scope, receive, send)
                return
            if caller is not None and routes:
                check_scope(caller, method, route)
        except SpineError as error:
            await answer_of(error)(scope, receive, send)
            return
        if is_head_of_get:
            await self.app({**scope, "method": "GET"}, receive, _without_body(send))
            return
        with _attributed(scope, caller):
            await self.app(scope, receive, send)

    async def _caller(self, scope: Scope, path: str) -> Caller | None:
        if path != API and not path.startswith(f"{API}/"):
            return None
        request = Request(scope)
        caller = request.state.caller = await authenticate(request)
        return caller


def _attributed(scope: Scope, caller: Caller | None) -> AbstractContextManager[None]:
    """Attributes what the request changes to its caller."""
    if caller is None:
        return nullcontext()
    about = structlog.contextvars.get_contextvars()
    actor = Actor(caller.name, caller.kind, about.get("request_id"), about.get("address"))
    return acting_as(actor, scope["app"].state.trail)


def _without_body(send: Send) -> Send:
    """Sends the headers as they are, and nothing of the body."""

    async def send_headers(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_headers
