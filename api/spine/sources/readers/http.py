"""Answers of web servers: asked for only when they are new, streamed, whole or not at all.

It speaks through httpx's transport, not through its client: the client would log URLs with their queries, and its
decoder takes a gzip that ends too early for a whole one.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK, Item, Unchanged, Validators, measured, not_whole
from spine.sources.readers.decoding import content_type_of, gunzipped, is_gzip
from spine.sources.readers.http_semantics import (
    HttpRequest,
    authorization,
    conditions,
    harmless,
    is_strong,
    length_of,
    name_of,
    same_origin,
    status_failure,
    still_known,
    validators_of,
)

__all__ = ["HttpReader", "HttpRequest", "authorization"]

MOST_REDIRECTS = 5
SECONDS_TO_CONNECT, SECONDS_TO_READ = 15, 60
_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT = {200, 203}
_OURS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "Spine"}


class HttpReader:
    """Reads the one content that a request brings."""

    def __init__(self, request: HttpRequest, allow_private: bool, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._key = request.key
        # No proxy, no .netrc: only the certificates that this machine trusts come from the environment.
        self._transport = httpx.HTTPTransport(verify=httpx.create_ssl_context(), trust_env=False)
        self._work = GuardedCall(allow_private, limits)
        self._response: httpx.Response | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The content, or that it is unchanged."""
        before = None if force or self._request.method != "GET" else known.get(self._key)
        response, url = self._work.run(self._ask, conditions(before))
        self._response = response
        asked = "If-None-Match" in response.request.headers or "If-Modified-Since" in response.request.headers
        if response.status_code == 304 and before is not None and asked:
            yield Unchanged(self._key, still_known(before, response))
            return
        if response.status_code not in _CONTENT:
            raise status_failure(response.status_code, self._key)
        coded = is_gzip(response.headers.get("Content-Encoding"), self._key)
        validators = validators_of(response, coded)
        if before is not None and is_strong(before.etag) and before.etag == validators.etag:
            # The server does not look at conditions, but its answer says the same.
            yield Unchanged(self._key, validators)
            return
        self._limits.expect(validators.size)
        content_type, encoding = content_type_of(response.headers.get("Content-Type"))
        name = name_of(response, self._request.url, url, coded)
        parts = self._parts(response)
        chunks = measured(gunzipped(parts, self._key, self._limits) if coded else parts, self._limits)
        yield Item(self._key, name, validators, content_type, encoding, chunks)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._work.run(self._response.close)
            self._response = None
        self._transport.close()
        self._work.close()

    def _ask(self, conditional: dict[str, str]) -> tuple[httpx.Response, httpx.URL]:
        """The answer after all redirects, and where it came from."""
        with self._explained():
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
                headers = harmless(headers) | conditional | {"Accept-Encoding": _OURS["Accept-Encoding"]}
            # A date says nothing about another file that the redirect may lead to by now.
            headers = {name: value for name, value in headers.items() if name != "If-Modified-Since"}
            if response.status_code in (301, 302, 303):
                method = "GET"
            url = target
        raise FetchFailure(ErrorCategory.SOURCE, f"{self._key} redirects more than {MOST_REDIRECTS} times.")

    def _send(self, method: str, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        connect, read = self._limits.wait(SECONDS_TO_CONNECT), self._limits.wait(SECONDS_TO_READ)
        waits = {"connect": connect, "read": read, "write": read, "pool": connect}
        with self._explained(url):
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
            raise FetchFailure(ErrorCategory.SOURCE, f"{self._key} redirects to what is no http or https URL.")
        if url.scheme == "https" and target.scheme == "http":
            raise FetchFailure(
                ErrorCategory.SOURCE,
                f"{self._key} redirects from https to http ({target.host}), which is not secure.",
            )
        return target

    def _parts(self, response: httpx.Response) -> Iterator[bytes]:
        """The body as it comes, in chunks."""
        raw = response.iter_raw()
        taken, promised = 0, length_of(response)
        while part := self._work.run(self._gather, raw):
            taken += len(part)
            yield part
        # At the deadline the connection is shut down, which can look like the end of a body without a length.
        self._limits.check_time()
        if promised is not None and taken != promised:
            raise not_whole(self._key)

    def _gather(self, raw: Iterator[bytes]) -> bytes:
        """The next chunk; none at the end."""
        found: list[bytes] = []
        size = 0
        with self._explained(receiving=True):
            for part in raw:
                self._limits.check_time()
                found.append(part)
                size += len(part)
                if size >= CHUNK:
                    break
        return b"".join(found)

    @contextmanager
    def _explained(self, url: httpx.URL | None = None, *, receiving: bool = False) -> Iterator[None]:
        """Put what httpx raises into a sentence. Its own would show URLs."""
        host = (url or httpx.URL(self._request.url)).host if not receiving else ""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise FetchFailure(ErrorCategory.CONFIG, f"{self._key} is not a URL that can be asked for.") from None
        except httpx.HTTPError as error:
            self._limits.check_time()
            if isinstance(error, httpx.ConnectError):
                raise self._work.refusal(host) or _no_connection(host, error) from None
            if receiving and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                raise not_whole(self._key) from None
            raise FetchFailure(ErrorCategory.NETWORK, _said(error, self._key), transient=True) from None


def _with_names_of(ours: Mapping[str, str], sent: Mapping[str, str]) -> dict[str, str]:
    """Headers under the names that ours have, where they are the same but for their case."""
    names = {name.lower(): name for name in ours}
    return {names.get(name.lower(), name): value for name, value in sent.items()}


def _no_connection(host: str, error: httpx.ConnectError) -> FetchFailure:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            sentence = f"{host} has a certificate that is not trusted: {cause.verify_message}."
            return FetchFailure(ErrorCategory.NETWORK, sentence)
        cause = cause.__cause__ or cause.__context__
    return FetchFailure(ErrorCategory.NETWORK, f"{host} cannot be connected to.", transient=True)


def _said(error: httpx.HTTPError, key: str) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"The server of {key} did not take the connection in time."
    if isinstance(error, httpx.TimeoutException):
        return f"The server of {key} was silent for {SECONDS_TO_READ} s or longer."
    return f"The server of {key} broke off or did not speak proper HTTP."
