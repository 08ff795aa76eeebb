"""The content of a body that was sent compressed: decoded while it comes, whole or not at all."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.parsers.compression import expansion_limit
from spine.sources.readers.base import CHUNK, not_whole

GZIP = {"gzip", "x-gzip"}
# S3 leaves this behind on objects that were sent in parts.
_NO_CODING = {"", "identity", "aws-chunked"}
# zlib's own way to say gzip.
_GZIP_WINDOW = 31


def is_gzip(content_encoding: str | None, key: str) -> bool:
    """Whether a body is compressed. Raises `FetchFailure` for a coding that was not asked for."""
    codings = [name.strip().lower() for name in (content_encoding or "").split(",")]
    left = [name for name in codings if name not in _NO_CODING]
    if not left:
        return False
    if len(left) == 1 and left[0] in GZIP:
        return True
    raise FetchFailure(ErrorCategory.SOURCE, f"{key} is sent in a coding that Spine did not ask for and cannot read.")


def gunzipped(parts: Iterator[bytes], key: str, limits: Limits) -> Iterator[bytes]:
    """The decoded content, never more than a chunk at once, whatever it expands to.

    Where there is no `max_bytes`, it may expand as archives may, measured by what has come and not by what was
    promised. Raises `FetchFailure` for more, for what is no gzip, and for one that ends too early.
    """
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    come = expanded = 0
    for part in parts:
        come += len(part)
        left, more = part, True
        while left or more:
            if decoder.eof:
                # Another member may follow, or zeros that fill a block.
                left = left.lstrip(b"\0")
                if not left:
                    break
                decoder = zlib.decompressobj(_GZIP_WINDOW)
            try:
                data = decoder.decompress(left, CHUNK)
            except zlib.error:
                raise FetchFailure(ErrorCategory.SOURCE, f"{key} is sent as gzip, which it is not.") from None
            left = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            # All input can be taken in while output still waits for its turn.
            more = len(data) == CHUNK
            expanded += len(data)
            if limits.max_bytes is None and expanded > expansion_limit(come):
                raise _expands_too_far(key, expansion_limit(come))
            if data:
                yield data
    if not decoder.eof:
        raise not_whole(key)


def _expands_too_far(key: str, limit: int) -> FetchFailure:
    sentence = f"{key} is sent as gzip that expands to more than {limit:,} bytes; max_bytes may allow more."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def decoded_name(name: str) -> str:
    """The name of content that came as gzip: the file of that name in it."""
    stem = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return stem or name


def content_type_of(header: str | None) -> tuple[str | None, str | None]:
    """The media type and the charset that a `Content-Type` names, each None where it does not."""
    if not header or not header.isprintable():
        return None, None
    message = Message()
    message["Content-Type"] = header
    charset = None
    with suppress(LookupError, ValueError):
        charset = message.get_content_charset()
    return header.partition(";")[0].strip().lower() or None, charset


def filename_of(disposition: str | None) -> str | None:
    """The name of the file that a `Content-Disposition` tells, without any folder."""
    if not disposition or not disposition.isprintable():
        return None
    message = Message()
    message["Content-Disposition"] = disposition
    with suppress(LookupError, ValueError):
        name = (message.get_filename() or "").replace("\\", "/").rpartition("/")[2].strip()
        return name if name.isprintable() and name not in ("", ".", "..") else None
    return None
