"""Objects of S3: read through s3fs's client, one request for each object, which always gives one version of it.

s3fs works on a loop in a thread of its own, which the guard would not see. So each reader has a file system of its own,
whose loop runs in the reader's thread while the reader waits. Nothing that Spine's own process knows of AWS is used:
no profile, no key, no endpoint and no proxy of the environment.
"""

import asyncio
import mimetypes
import os
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar

import s3fs  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.sources.readers.base import (
    CHUNK,
    MOST_FILES,
    Item,
    Unchanged,
    Validators,
    changed_meanwhile,
    measured,
    none_matches,
    not_there,
    not_whole,
    too_many_match,
)
from spine.sources.readers.decoding import content_type_of, decoded_name, gunzipped, is_gzip
from spine.sources.readers.globs import has_magic, literal_parts, path_matches
from spine.sources.readers.s3_failures import failure_of, status_of

DEFAULT_REGION = "us-east-1"
# Nothing of these is read from the environment or from files.
_NOTHING = {
    "profile": (None, None, None, None),
    "region": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
_CONFIG = {
    "connect_timeout": 15,
    "read_timeout": 60,
    # Prefect tries again, with more patience.
    "retries": {"max_attempts": 1, "mode": "standard"},
    # A proxy would connect for us, to addresses that nobody checks.
    "proxies": {},
    "ignore_configured_endpoint_urls": True,
    # Stores other than Amazon's do not know the newer checksums.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
T = TypeVar("T")


@dataclass(frozen=True)
class S3Place:
    """Where objects are; `keys` are the access key and the secret key, None asks as anybody."""

    bucket: str
    pattern: str
    endpoint_url: str | None
    region: str | None
    keys: tuple[str, str] | None = field(default=None, repr=False)

    def name(self, key: str) -> str:
        """An object as people name it."""
        return f"s3://{self.bucket}/{key}"


@dataclass(frozen=True)
class _Listed:
    """An object as a list of the bucket shows it; without an ETag nothing is known of it."""

    key: str
    etag: str | None = None
    size: int | None = None


class S3Reader:
    """Reads the objects whose key is the pattern or matches it."""

    def __init__(self, place: S3Place, allow_private: bool, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._work = GuardedCall(allow_private, limits)
        # Not uvloop, which connects where the guard does not see it.
        self._loop = asyncio.SelectorEventLoop()
        self._client: Any = None
        self._body: Any = None
        self._closed = False

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The objects in the order of their keys."""
        self._client = self._wait(self._connect(), self._place.name(self._place.pattern))
        for listed in self._objects():
            key = self._place.name(listed.key)
            before = None if force else known.get(key)
            if before is not None and before.etag and (before.etag, before.size) == (listed.etag, listed.size):
                yield Unchanged(key, before)
                continue
            answer = self._wait(self._get(listed, before), key)
            if answer is None and before is not None:
                yield Unchanged(key, before)
                continue
            yield self._item(listed, key, answer)
            self._close_body()

    def close(self) -> None:
        """Close the connections and the loop."""
        if self._closed:
            return
        self._closed = True
        self._close_body()
        if self._client is not None:
            with suppress(Exception):
                self._work.run(self._loop.run_until_complete, self._client.__aexit__(None, None, None))
        self._work.close()
        self._loop.close()

    async def _connect(self) -> Any:
        key, secret = self._place.keys or (None, None)
        files = s3fs.S3FileSystem(
            anon=key is None,
            key=key,
            secret=secret,
            endpoint_url=self._place.endpoint_url,
            client_kwargs={"region_name": self._place.region or DEFAULT_REGION},
            config_kwargs=_CONFIG,
            session=AioSession(session_vars=_NOTHING),
            asynchronous=True,
            loop=self._loop,
            skip_instance_cache=True,
        )
        return await files.set_session()

    def _objects(self) -> list[_Listed]:
        pattern = self._place.pattern
        if not has_magic(pattern):
            return [_Listed(pattern)]
        found = self._wait(self._list(pattern), self._place.name(pattern))
        if not found:
            raise none_matches(self._place.name(pattern))
        return sorted(found, key=lambda listed: listed.key)

    async def _list(self, pattern: str) -> list[_Listed]:
        folders = literal_parts(pattern.split("/"))
        prefix = "".join(f"{folder}/" for folder in folders)
        found: list[_Listed] = []
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._place.bucket, Prefix=prefix)
        async for page in pages:
            self._limits.check_time()
            for one in page.get("Contents", ()):
                # A key that ends like a folder is one that some tools make for it.
                if not one["Key"].endswith("/") and path_matches(pattern, one["Key"]):
                    found.append(_Listed(one["Key"], one.get("ETag"), one.get("Size")))
            if len(found) > MOST_FILES:
                raise too_many_match(self._place.name(pattern))
        return found

    async def _get(self, listed: _Listed, before: Validators | None) -> Any:
        """The answer that has the object; None when it is what is known."""
        condition: dict[str, Any] = {}
        if listed.etag:
            condition = {"IfMatch": listed.etag}
        elif before is not None and before.etag:
            condition = {"IfNoneMatch": before.etag}
        try:
            answer = await self._client.get_object(Bucket=self._place.bucket, Key=listed.key, **condition)
        except Exception as error:
            if status_of(error) == 304 and before is not None:
                return None
            if status_of(error) == 404 and listed.etag:
                raise not_there(self._place.name(listed.key), listed=True) from None
            if status_of(error) == 412:
                raise changed_meanwhile(self._place.name(listed.key)) from None
            raise
        self._body = answer["Body"]
        # Not every store looks at conditions.
        if before is not None and before.etag and before.etag == answer.get("ETag"):
            self._close_body()
            return None
        if listed.etag and listed.etag != answer.get("ETag"):
            raise changed_meanwhile(self._place.name(listed.key))
        return answer

    def _item(self, listed: _Listed, key: str, answer: Any) -> Item:
        size, modified = answer["ContentLength"], answer.get("LastModified")
        validators = Validators(answer.get("ETag"), modified.astimezone(UTC) if modified else None, size)
        self._limits.expect(size)
        coded = is_gzip(answer.get("ContentEncoding"), key)
        name = listed.key.rpartition("/")[2]
        content_type, encoding = content_type_of(answer.get("ContentType"))
        parts = self._parts(key, size)
        chunks = measured(gunzipped(parts, key, self._limits) if coded else parts, self._limits)
        name = decoded_name(name) if coded else name
        return Item(key, name, validators, content_type or mimetypes.guess_type(name)[0], encoding, chunks)

    def _parts(self, key: str, size: int) -> Iterator[bytes]:
        taken = 0
        while part := self._wait(self._gather(), key):
            taken += len(part)
            yield part
        if taken != size:
            raise not_whole(key)

    async def _gather(self) -> bytes:
        """The next chunk; none at the end."""
        found: list[bytes] = []
        size = 0
        while size < CHUNK and (part := await self._body.read(CHUNK)):
            found.append(part)
            size += len(part)
        return b"".join(found)

    def _wait(self, work: Coroutine[Any, Any, T], key: str) -> T:
        """Run within the guard and the time."""
        try:
            return self._work.run(self._loop.run_until_complete, self._in_time(work))
        except Exception as error:
            self._limits.check_time()
            raise failure_of(error, key, self._work, self._place.endpoint_url) from None

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        # The guard cannot end the look-up of a name; this leaves it behind.
        async with asyncio.timeout(min(self._limits.left(), 10**9)):
            return await work

    def _close_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
