"""The time between the signal to stop and the end of a server, in which others learn to send requests elsewhere."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Draining:
    """Whether this server is about to stop. Until it does, it answers all requests as before."""

    def __init__(self) -> None:
        self.is_on = False
        self._others: list[Callable[[], None]] = []

    def also(self, begin: Callable[[], None]) -> None:
        """Let this be called when draining begins, in a signal handler."""
        self._others.append(begin)

    def begin(self) -> None:
        """Report to health checks that this server stops."""
        self.is_on = True
        for begin in self._others:
            begin()


class DrainingMiddleware:
    """Lets clients open a new connection, perhaps to another server, for their next request while this one drains."""

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self.app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request as the application does."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining.is_on:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, send_and_close)
