"""What the tests of readers share."""

import hashlib
import math
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.settings import Settings
from spine.sources.readers.base import Item, Reader, Unchanged, Validators
from spine.sources.types import SOURCE_TYPES
from spine.sources.types.base import SourceConfig

from tests.support.receivers import Behaviour, Handler, Receiver, accept
from tests.support.web import serving

OPEN = Settings(allow_private_addresses=True)
CLOSED = Settings(allow_private_addresses=False)
# The content that all types of sources read in the tests: more than a few chunks, no two of them the same.
CONTENT = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(300_000))


def config_of(source_type: str, **fields: object) -> SourceConfig:
    return SOURCE_TYPES[source_type].model_validate(fields)


def limits(max_bytes: int | None = None, seconds: float = math.inf) -> Limits:
    return Limits(max_bytes, time.monotonic() + seconds, seconds)


def read(
    reader: Reader, known: Mapping[str, Validators] | None = None, *, force: bool = False
) -> list[tuple[Item, bytes] | Unchanged]:
    """All items with their content; the reader is closed."""
    try:
        return [
            item if isinstance(item, Unchanged) else (item, b"".join(item.chunks))
            for item in reader.items(known or {}, force)
        ]
    finally:
        reader.close()
        reader.close()


def read_one(reader: Reader, known: Mapping[str, Validators] | None = None) -> tuple[Item, bytes]:
    [found] = read(reader, known)
    assert not isinstance(found, Unchanged)
    return found


def failure(reader: Reader, known: Mapping[str, Validators] | None = None) -> FetchFailure:
    """Why a source cannot be read."""
    with pytest.raises(FetchFailure) as caught:
        read(reader, known)
    return caught.value


def known_of(found: list[tuple[Item, bytes] | Unchanged]) -> dict[str, Validators]:
    """What is remembered of a reading, by way of how it is stored."""
    items = [one if isinstance(one, Unchanged) else one[0] for one in found]
    return {item.key: Validators.from_json(item.validators.to_json()) for item in items}


def settle(*files: Path) -> None:
    """Make files old enough to be read at once."""
    for file in files:
        os.utime(file, (1_700_000_000, 1_700_000_000))


def fresh(site: Receiver) -> Receiver:
    """A receiver for another test."""
    site.requests.clear()
    site.behaviours.clear()
    site.always = accept
    return site


def raw(answer: bytes) -> Behaviour:
    """Send these bytes and hang up."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(answer)

    return behave


@contextmanager
def tls_receiver(authority: trustme.CA) -> Iterator[Receiver]:
    """A receiver over TLS, whose certificate is for 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(server.server_address[1])
    server.RequestHandlerClass = type("BoundHandler", (Handler,), {"receiver": made})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        try:
            yield made
        finally:
            made.stopped.set()
