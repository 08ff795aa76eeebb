"""Leaves WebSockets out of the limit that Prefect's server has on requests with SQLite.

The server handles at most 100 requests at once there, and counts WebSockets as requests. Each run keeps two of them
open while it executes: fifty runs at once would take all places, and no request would ever be answered again.
"""

import inspect
from typing import Any

from prefect.server.api import server

_CALL, _PARAMETERS = "__call__", ("self", "scope", "receive", "send")


def install_request_limits() -> list[str]:
    """Replace a method of Prefect in this process; the name that this version lacks, if it does."""
    middleware: Any = getattr(server, "RequestLimitMiddleware", None)
    if middleware is None or tuple(inspect.signature(middleware.__call__).parameters) != _PARAMETERS:
        return ["RequestLimitMiddleware.__call__"]
    limited = middleware.__call__

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        handle = self.app if scope["type"] == "websocket" else limited.__get__(self)
        await handle(scope, receive, send)

    setattr(middleware, _CALL, call)
    return []
