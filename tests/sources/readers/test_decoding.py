"""Bodies that were sent compressed: how far they may expand."""

import zlib
from collections.abc import Iterator

import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import CHUNK
from spine.sources.readers.decoding import gunzipped

from tests.sources.readers.support import CONTENT, OPEN, config_of, failure, limits
from tests.support.receivers import receiver, refuse

MIB = 1024 * 1024


def packed(start: bytes, zeros: int) -> bytes:
    """A gzip of `start` and so many MiB of zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(start) + b"".join(packer.compress(bytes(MIB)) for _ in range(zeros)) + packer.flush()


def expanded(body: bytes, max_bytes: int | None = None) -> int:
    """How many bytes a body expands to, where it comes in small parts."""

    def parts() -> Iterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    sizes = [len(part) for part in gunzipped(parts(), "key", limits(max_bytes))]
    assert max(sizes) <= CHUNK
    return sum(sizes)


def test_a_gzip_bomb_is_refused_where_max_bytes_says_nothing() -> None:
    with receiver() as site:
        site.always = refuse(200, packed(b"", 128), Content_Encoding="gzip")
        source = config_of("http", url=f"http://127.0.0.1:{site.port}/rows.csv")
        failed = failure(source.open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
    assert "rows.csv was sent as gzip and expands to more than 100,000,000 bytes" in failed.sentence


@pytest.mark.slow
def test_the_limit_of_expansion_grows_with_the_bytes_received() -> None:
    start = CONTENT[: 2 * MIB]
    assert expanded(packed(start, 128)) == len(start) + 128 * MIB
    with pytest.raises(FetchFailure, match="expands to more than"):
        expanded(packed(start, 600))


def test_max_bytes_takes_the_place_of_the_limit() -> None:
    assert expanded(packed(b"", 128), max_bytes=200 * MIB) == 128 * MIB
