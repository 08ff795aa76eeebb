"""Learns from the requests that arrive on which addresses this process listens, so that no user can reach them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from spine.egress.own_services import Listeners


class ListenerMiddleware:
    """Adds the listener of each request to `listeners`. A Unix socket has no port and needs none."""

    def __init__(self, app: ASGIApp, listeners: Listeners) -> None:
        self.app = app
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request as the application does."""
        # The server's own address, which no header of the client changes.
        server = scope.get("server")
        if server and server[1]:
            self._listeners.add(server[0], server[1])
        await self.app(scope, receive, send)
