"""S3 objects, read through s3fs's client with one request per object, so that all bytes are of one version.

By default s3fs runs its event loop in a separate thread, where the guard is not set. So each reader has its own file
system, whose loop runs in the reader's thread. No AWS profile, key, endpoint or proxy of Spine's own environment is
used.
"""

import asyncio
import mimetypes
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar

import s3fs  # type: ignore[import-untyped]

from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.egress.s3_session import ModernSession, session_without_environment
from spine.sources.readers.base import (
    CHUNK,
    MOST_FILES,
    Item,
    Unchanged,
    Validators,
    changed_while_read,
    incomplete,
    limited,
    no_match,
    not_found,
    too_many_matches,
)
from spine.sources.readers.decoding import content_type_of, decoded_name, gunzipped, is_gzip
from spine.sources.readers.globs import has_magic, literal_parts, path_matches, without_others
from spine.sources.readers.s3_failures import failure_of, status_of

DEFAULT_REGION = "us-east-1"
_CONFIG = {
    "http_session_cls": ModernSession,
    "connect_timeout": 15,
    "read_timeout": 60,
    # Prefect retries, with longer delays.
    "retries": {"max_attempts": 1, "mode": "standard"},
    # A proxy would connect to addresses that the guard does not check.
    "proxies": {},
    "ignore_configured_endpoint_urls": True,
    # Stores other than Amazon's do not support the newer checksums.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
T = TypeVar("T")


@dataclass(frozen=True)
class S3Location:
    """Where objects are; `keys` are the access key and the secret key, None for anonymous access."""

    bucket: str
    pattern: str
    endpoint_url: str | None
    region: str | None
    keys: tuple[str, str] | None = field(default=None, repr=False)

    def url(self, key: str) -> str:
        """The s3:// URL of an object."""
        return f"s3://{self.bucket}/{key}"


@dataclass(frozen=True)
class _Listed:
    """An object in a listing of the bucket; without an ETag it was not listed but named."""

    key: str
    etag: str | None = None
    size: int | None = None


class S3Reader:
    """Reads the objects whose keys match the pattern."""

    def __init__(self, location: S3Location, allow_private: bool, limits: Limits) -> None:
        self._location = location
        self._limits = limits
        self._guarded = GuardedCall(allow_private, limits)
        # Not uvloop, which connects in C, where the guard cannot see it.
        self._loop = asyncio.SelectorEventLoop()
        self._client: Any = None
        self._body: Any = None
        self._closed = False

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The objects in the order of their keys."""
        self._client = self._wait(self._connect(), self._location.url(self._location.pattern))
        for listed in self._objects():
            key = self._location.url(listed.key)
            before = None if force else known.get(key)
            if before is not None and before.etag and (before.etag, before.size) == (listed.etag, listed.size):
                yield Unchanged(key, before)
                continue
            response = self._wait(self._get(listed, before), key)
            if response is None and before is not None:
                yield Unchanged(key, before)
                continue
            yield self._item(listed, key, response)
            self._close_body()

    def close(self) -> None:
        """Close the connections and the loop."""
        if self._closed:
            return
        self._closed = True
        self._close_body()
        if self._client is not None:
            with suppress(Exception):
                self._guarded.run(self._loop.run_until_complete, self._client.__aexit__(None, None, None))
        self._guarded.close()
        self._loop.close()

    async def _connect(self) -> Any:
        key, secret = self._location.keys or (None, None)
        files = s3fs.S3FileSystem(
            anon=key is None,
            key=key,
            secret=secret,
            endpoint_url=self._location.endpoint_url,
            client_kwargs={"region_name": self._location.region or DEFAULT_REGION},
            config_kwargs=_CONFIG,
            session=session_without_environment(),
            asynchronous=True,
            loop=self._loop,
            skip_instance_cache=True,
        )
        return await files.set_session()

    def _objects(self) -> list[_Listed]:
        pattern = self._location.pattern
        if not has_magic(pattern):
            return [_Listed(pattern)]
        found = self._wait(self._list(pattern), self._location.url(pattern))
        if not found:
            raise no_match(self._location.url(pattern))
        wanted = set(without_others(pattern, [listed.key for listed in found]))
        return sorted((listed for listed in found if listed.key in wanted), key=lambda listed: listed.key)

    async def _list(self, pattern: str) -> list[_Listed]:
        prefix = "".join(f"{part}/" for part in literal_parts(pattern.split("/")))
        found: list[_Listed] = []
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._location.bucket, Prefix=prefix)
        async for page in pages:
            self._limits.check_time()
            for one in page.get("Contents", ()):
                # Some tools create keys with a trailing slash as directories.
                if not one["Key"].endswith("/") and path_matches(pattern, one["Key"]):
                    found.append(_Listed(one["Key"], one.get("ETag"), one.get("Size")))
            if len(found) > MOST_FILES:
                raise too_many_matches(self._location.url(pattern))
        return found

    async def _get(self, listed: _Listed, before: Validators | None) -> Any:
        """The response with the object; None if the object has not changed."""
        condition: dict[str, Any] = {}
        if listed.etag:
            condition = {"IfMatch": listed.etag}
        elif before is not None and before.etag:
            condition = {"IfNoneMatch": before.etag}
        try:
            response = await self._client.get_object(Bucket=self._location.bucket, Key=listed.key, **condition)
        except Exception as error:
            if status_of(error) == 304 and before is not None:
                return None
            if status_of(error) == 404 and listed.etag:
                raise not_found(self._location.url(listed.key), listed=True) from None
            if status_of(error) == 412:
                raise changed_while_read(self._location.url(listed.key)) from None
            raise
        self._body = response["Body"]
        # Not every store supports conditional requests.
        if before is not None and before.etag and before.etag == response.get("ETag"):
            self._close_body()
            return None
        if listed.etag and listed.etag != response.get("ETag"):
            raise changed_while_read(self._location.url(listed.key))
        return response

    def _item(self, listed: _Listed, key: str, response: Any) -> Item:
        size, modified = response["ContentLength"], response.get("LastModified")
        validators = Validators(response.get("ETag"), modified.astimezone(UTC) if modified else None, size)
        self._limits.expect(size)
        compressed = is_gzip(response.get("ContentEncoding"), key)
        name = listed.key.rpartition("/")[2]
        content_type, encoding = content_type_of(response.get("ContentType"))
        parts = self._parts(key, size)
        chunks = limited(gunzipped(parts, key, self._limits) if compressed else parts, self._limits)
        name = decoded_name(name) if compressed else name
        guessed = mimetypes.guess_type(name)[0]
        return Item(key, name, validators, content_type or guessed, encoding, chunks, content_type)

    def _parts(self, key: str, size: int) -> Iterator[bytes]:
        taken = 0
        while part := self._wait(self._next_chunk(), key):
            taken += len(part)
            yield part
        if taken != size:
            raise incomplete(key)

    async def _next_chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        found: list[bytes] = []
        size = 0
        while size < CHUNK and (part := await self._body.read(CHUNK)):
            found.append(part)
            size += len(part)
        return b"".join(found)

    def _wait(self, request: Coroutine[Any, Any, T], key: str) -> T:
        """Run within the guard and the deadline, with errors translated."""
        try:
            return self._guarded.run(self._loop.run_until_complete, self._with_timeout(request))
        except Exception as error:
            self._limits.check_time()
            raise failure_of(error, key, self._guarded, self._location.endpoint_url) from None

    async def _with_timeout(self, request: Coroutine[Any, Any, T]) -> T:
        # The guard cannot end a DNS look-up; the timeout abandons it.
        async with asyncio.timeout(min(self._limits.left(), 10**9)):
            return await request

    def _close_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
