"""Decoding of compressed response bodies while they arrive, and the headers that describe a body."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.parsers.compression import expansion_limit
from spine.sources.readers.base import CHUNK, incomplete

GZIP = {"gzip", "x-gzip"}
# S3 keeps aws-chunked on objects that were uploaded in parts.
_NO_ENCODING = {"", "identity", "aws-chunked"}
# This value of wbits makes zlib expect gzip.
_GZIP_WINDOW = 31


def is_gzip(content_encoding: str | None, key: str) -> bool:
    """Whether a body is gzip. Raises `FetchFailure` for any other encoding, which Spine did not request."""
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    encodings = [name for name in names if name not in _NO_ENCODING]
    if not encodings:
        return False
    if len(encodings) == 1 and encodings[0] in GZIP:
        return True
    raise FetchFailure(ErrorCategory.SOURCE, f"{key} was sent with a Content-Encoding that Spine cannot decode.")


def gunzipped(parts: Iterator[bytes], key: str, limits: Limits) -> Iterator[bytes]:
    """The decoded content, in chunks of at most `CHUNK` bytes.

    Without `max_bytes` the limit is that of compressed files, computed from the bytes received and not from the
    announced length. Raises `FetchFailure` if the content expands further, is not gzip, or ends early.
    """
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    received = expanded = 0
    for part in parts:
        received += len(part)
        pending, more = part, True
        while pending or more:
            if decoder.eof:
                # Another gzip member may follow, or padding with zeros.
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                decoder = zlib.decompressobj(_GZIP_WINDOW)
            try:
                data = decoder.decompress(pending, CHUNK)
            except zlib.error:
                raise FetchFailure(ErrorCategory.SOURCE, f"{key} was sent as gzip but is not valid gzip.") from None
            pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            # All input can be consumed while output is still pending.
            more = len(data) == CHUNK
            expanded += len(data)
            if limits.max_bytes is None and expanded > expansion_limit(received):
                raise _expands_too_far(key, expansion_limit(received))
            if data:
                yield data
    if not decoder.eof:
        raise incomplete(key)


def _expands_too_far(key: str, limit: int) -> FetchFailure:
    sentence = f"{key} was sent as gzip and expands to more than {limit:,} bytes; set max_bytes to allow more."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def decoded_name(name: str) -> str:
    """The name of the decoded content: without a `.gz` suffix."""
    stem = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return stem or name


def content_type_of(header: str | None) -> tuple[str | None, str | None]:
    """The media type and the charset of a `Content-Type` header; None for what it does not contain."""
    if not header or not header.isprintable():
        return None, None
    message = Message()
    message["Content-Type"] = header
    charset = None
    with suppress(LookupError, ValueError):
        charset = message.get_content_charset()
    return header.partition(";")[0].strip().lower() or None, charset


def filename_of(disposition: str | None) -> str | None:
    """The file name in a `Content-Disposition` header, without directories; None if there is no usable one."""
    if not disposition or not disposition.isprintable():
        return None
    message = Message()
    message["Content-Disposition"] = disposition
    with suppress(LookupError, ValueError):
        name = (message.get_filename() or "").replace("\\", "/").rpartition("/")[2].strip()
        return name if name.isprintable() and name not in ("", ".", "..") else None
    return None
