"""Responses of HTTP servers: requested conditionally, streamed, and complete or failed.

It uses httpx's transport and not its client: the client logs URLs with their queries, and its decoder accepts
truncated gzip as complete.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.egress.tls import http_context
from spine.egress.tls_failures import tls_failure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK, Item, Unchanged, Validators, incomplete, limited
from spine.sources.readers.decoding import content_type_of, gunzipped, is_gzip
from spine.sources.readers.http_semantics import (
    HttpRequest,
    authorization,
    conditional_headers,
    is_strong,
    length_of,
    name_of,
    refreshed,
    safe_headers,
    same_origin,
    status_failure,
    validators_of,
)

__all__ = ["HttpReader", "HttpRequest", "authorization"]

MOST_REDIRECTS = 5
SECONDS_TO_CONNECT, SECONDS_TO_READ = 15, 60
_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT = {200, 203}
_OURS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "Spine"}


class HttpReader:
    """Reads the content of one request."""

    def __init__(self, request: HttpRequest, allow_private: bool, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._key = request.key
        # No proxy and no .netrc: only the trusted certificates come from the environment.
        self._transport = httpx.HTTPTransport(verify=http_context(), trust_env=False)
        self._guarded = GuardedCall(allow_private, limits)
        self._response: httpx.Response | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """One item: the content, or `Unchanged`."""
        before = None if force or self._request.method != "GET" else known.get(self._key)
        response, url = self._guarded.run(self._request_following_redirects, conditional_headers(before))
        self._response = response
        was_conditional = "If-None-Match" in response.request.headers or "If-Modified-Since" in response.request.headers
        if response.status_code == 304 and before is not None and was_conditional:
            yield Unchanged(self._key, refreshed(before, response))
            return
        if response.status_code not in _CONTENT:
            raise status_failure(response.status_code, self._key)
        compressed = is_gzip(response.headers.get("Content-Encoding"), self._key)
        validators = validators_of(response, compressed)
        if before is not None and is_strong(before.etag) and before.etag == validators.etag:
            # The server ignores conditional headers, but its ETag shows the same.
            yield Unchanged(self._key, validators)
            return
        self._limits.expect(validators.size)
        content_type, encoding = content_type_of(response.headers.get("Content-Type"))
        name = name_of(response, self._request.url, url, compressed)
        parts = self._parts(response)
        chunks = limited(gunzipped(parts, self._key, self._limits) if compressed else parts, self._limits)
        yield Item(self._key, name, validators, content_type, encoding, chunks, content_type)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._guarded.run(self._response.close)
            self._response = None
        self._transport.close()
        self._guarded.close()

    def _request_following_redirects(self, conditional: dict[str, str]) -> tuple[httpx.Response, httpx.URL]:
        """The response after all redirects, and its URL."""
        with self._translated_errors():
            url, method = httpx.URL(self._request.whole_url), self._request.method
        headers = _OURS | _with_names_of(_OURS, self._request.headers) | conditional
        for _ in range(MOST_REDIRECTS + 1):
            response = self._send(method, url, headers)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or location is None:
                return response, url
            response.close()
            target = self._target(url, location)
            if not same_origin(url, target):
                headers = safe_headers(headers) | conditional | {"Accept-Encoding": _OURS["Accept-Encoding"]}
            # The redirect may lead to another file now, for which a date is no condition.
            headers = {name: value for name, value in headers.items() if name != "If-Modified-Since"}
            if response.status_code in (301, 302, 303):
                method = "GET"
            url = target
        raise FetchFailure(ErrorCategory.SOURCE, f"{self._key} redirects more than {MOST_REDIRECTS} times.")

    def _send(self, method: str, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        connect, read = self._limits.wait(SECONDS_TO_CONNECT), self._limits.wait(SECONDS_TO_READ)
        waits = {"connect": connect, "read": read, "write": read, "pool": connect}
        with self._translated_errors(url):
            request = httpx.Request(method, url, headers=headers, extensions={"timeout": waits})
            response = self._transport.handle_request(request)
        response.request = request
        return response

    def _target(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location).copy_with(username=None, password=None, fragment=None)
        except (httpx.InvalidURL, ValueError, TypeError):
            target = httpx.URL("")
        if target.scheme not in ("http", "https") or not target.host:
            raise FetchFailure(
                ErrorCategory.SOURCE, f"{self._key} redirects to something that is not an http or https URL."
            )
        if url.scheme == "https" and target.scheme == "http":
            raise FetchFailure(
                ErrorCategory.SOURCE,
                f"{self._key} redirects from https to http ({target.host}), which is refused as insecure.",
            )
        return target

    def _parts(self, response: httpx.Response) -> Iterator[bytes]:
        """The body as sent, in chunks."""
        raw = response.iter_raw()
        taken, announced = 0, length_of(response)
        while part := self._guarded.run(self._next_chunk, raw):
            taken += len(part)
            yield part
        # The guard shuts the connection down at the deadline, which can look like the end of a body without a length.
        self._limits.check_time()
        if announced is not None and taken != announced:
            raise incomplete(self._key)

    def _next_chunk(self, raw: Iterator[bytes]) -> bytes:
        """The next chunk; empty at the end."""
        parts: list[bytes] = []
        size = 0
        with self._translated_errors(receiving=True):
            for part in raw:
                self._limits.check_time()
                parts.append(part)
                size += len(part)
                if size >= CHUNK:
                    break
        return b"".join(parts)

    @contextmanager
    def _translated_errors(self, url: httpx.URL | None = None, *, receiving: bool = False) -> Iterator[None]:
        """Translate errors of httpx, whose own messages show URLs with their queries."""
        host = (url or httpx.URL(self._request.url)).host if not receiving else ""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise FetchFailure(ErrorCategory.CONFIG, f"{self._key} is not a valid URL.") from None
        except httpx.HTTPError as error:
            self._limits.check_time()
            if isinstance(error, httpx.ConnectError):
                raise self._guarded.refusal(host) or _connection_failure(host, error) from None
            if receiving and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                raise incomplete(self._key) from None
            raise FetchFailure(
                ErrorCategory.NETWORK, _exchange_failure_sentence(error, self._key), transient=True
            ) from None


def _with_names_of(ours: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    """Headers, with names that differ from ours only in case spelled as ours."""
    names = {name.lower(): name for name in ours}
    return {names.get(name.lower(), name): value for name, value in headers.items()}


def _connection_failure(host: str, error: httpx.ConnectError) -> FetchFailure:
    unreachable = FetchFailure(ErrorCategory.NETWORK, f"Cannot connect to {host}.", transient=True)
    return tls_failure(error, host) or unreachable


def _exchange_failure_sentence(error: httpx.HTTPError, key: str) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"The server of {key} did not accept the connection within {SECONDS_TO_CONNECT} s."
    if isinstance(error, httpx.TimeoutException):
        return f"The server of {key} sent nothing for {SECONDS_TO_READ} s."
    return f"The server of {key} closed the connection or sent invalid HTTP."
