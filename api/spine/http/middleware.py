"""Middleware in plain ASGI: request ids and the access log, the body limit, the media type.

Plain ASGI, because a client that disconnects must not cancel accepted work, and because answers may be streams.
"""

import re
import time
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spine.audit.log_lines import Changes
from spine.http.client_address import Network, client_address
from spine.http.errors import envelope
from spine.http.logs import get_logger
from spine.measures import request_answered
from spine.tables.base import new_id
from spine.tracing import request_ended, request_span

log = get_logger("spine.http")

ACCEPTABLE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Where the gate leaves the path of the route, for what is measured.
ROUTE = "spine.route"
BODY_METHODS = {"POST", "PUT", "PATCH", "DELETE"}


class RequestIdMiddleware:
    """Give every request an id (the caller's `X-Request-ID` if it is safe), log it, and answer 500 on a crash.

    Every log record of a request has its id, the client's address and, once the credential is checked, the key's name.
    What a request has changed is logged before its answer is sent, if it has succeeded.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: Sequence[Network] = ()) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, with its id in every log record."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wanted = headers.get("x-request-id", "")
        request_id = wanted if ACCEPTABLE_REQUEST_ID.fullmatch(wanted) else new_id()
        started = time.perf_counter()
        status = 0

        changes = Changes()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status < 400:
                    # They are committed, and the client does not know yet.
                    changes.write()
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        address = client_address(scope, self.trusted_proxies)
        # The key is bound when the credential is checked. A pipelined request inherits the variables of the one before.
        about = structlog.contextvars.bound_contextvars(request_id=request_id, address=address, key=None, key_id=None)
        with about, changes.collecting(), request_span(scope["method"], headers.get("traceparent")) as span:
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                log.exception("request crashed", method=scope["method"], path=scope["path"])
                if status:
                    raise
                detail = f"Internal error. The server log has the details under request id {request_id}."
                await envelope(500, detail)(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                request_answered(scope["method"], scope.get(ROUTE), status, seconds)
                request_ended(span, scope["method"], scope.get(ROUTE), status, request_id)
                duration_ms = round(seconds * 1000, 1)
                log.info("request", method=scope["method"], path=scope["path"], status=status, duration_ms=duration_ms)


class BodyMiddleware:
    """Reject bodies that are larger than the limit (413) or not JSON (415) before they are parsed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit and pass it on as one message."""
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        too_large = envelope(413, f"The body is larger than the limit of {self.max_bytes:,} bytes.")
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            await too_large(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self.max_bytes:
                await too_large(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        if body and not _is_json(headers.get("content-type", "")):
            await envelope(415, "Send the body as application/json.")(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
