import bz2
import gzip
import io
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.sources.parsers.support import Desk

ROWS = b"a,b\n" + b"1,2\n" * 100
MORE = b"3,4\n" * 50


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


STREAMS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}
streams = pytest.mark.parametrize("suffix", list(STREAMS))


@streams
@pytest.mark.parametrize("named", [True, False])
def test_every_member_of_a_compressed_file_is_read(desk: Desk, suffix: str, named: bool) -> None:
    compress = STREAMS[suffix]
    assert desk.parse(compress(ROWS) + compress(MORE), "csv", f"x.csv{suffix}" if named else "x").rows == 150


@streams
def test_a_compressed_file_that_ends_early_does_not_parse(desk: Desk, suffix: str) -> None:
    compress = STREAMS[suffix]
    whole = compress(ROWS) + compress(MORE)
    assert f"the {suffix[1:]} ends early" in desk.refusal(whole[:-3], "csv", f"x{suffix}")
    assert f"the {suffix[1:]} is damaged" in desk.refusal(whole + b"junk, junk", "csv", f"x{suffix}")


@pytest.mark.parametrize("suffix", [*STREAMS, ".zip"])
def test_a_file_that_is_not_what_its_suffix_says_does_not_parse(desk: Desk, suffix: str) -> None:
    assert f"its name ends in {suffix}, but it is not a {suffix[1:]} file" in desk.refusal(
        ROWS, "csv", f"x.csv{suffix}"
    )
    assert "its name ends in" in desk.refusal(b"", "csv", f"x.csv{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("compress", [*STREAMS.values(), lambda content: zipped(("x.csv", content))])
def test_an_expansion_over_the_limit_does_not_parse(desk: Desk, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"a,b\n" + b"1,2\n" * 1_000_000)
    assert "expands to more than 1,000,000 bytes" in desk.refusal(bomb, "csv", max_expanded_bytes=1_000_000)
    assert desk.parse(bomb, "csv").rows == 1_000_000
    assert "expands to more than 100,000,000 bytes" in desk.refusal(compress(b"a,b\n" + b"\n" * 100_000_000), "csv")


def test_a_zip_contains_one_file_besides_directories_and_macos_metadata(desk: Desk) -> None:
    content = zipped(("in/", b""), ("in/x.csv", ROWS), ("__MACOSX/in/._x.csv", b"\0"))
    assert desk.parse(content, "csv", "x.csv.zip").rows == 100
    assert "the zip contains 2 files" in desk.refusal(zipped(("a", ROWS), ("b", ROWS)), "csv", "x.zip")
    assert "the zip contains no files" in desk.refusal(zipped(), "csv", "x.zip")


def test_a_zip_that_is_encrypted_or_of_another_method_is_refused(desk: Desk) -> None:
    plain = bytearray(zipped(("x.csv", ROWS)))
    plain[plain.rindex(b"PK\x01\x02") + 8] |= 1
    assert "the zip is encrypted" in desk.refusal(bytes(plain), "csv", "x.zip")
    other = zipped(("x.csv", ROWS), method=zipfile.ZIP_BZIP2)
    assert "only deflate is supported" in desk.refusal(other, "csv", "x.zip")


def test_a_zip_with_a_wrong_checksum_or_without_its_end_is_damaged(desk: Desk) -> None:
    content = zipped(("x.csv", ROWS), method=zipfile.ZIP_STORED)
    assert "the zip is damaged" in desk.refusal(content.replace(b"1,2\n1,2", b"1,2\n1,3", 1), "csv", "x.zip")
    assert "the zip is damaged" in desk.refusal(content[:-30], "csv", "x.zip")


def test_the_directory_of_a_zip_is_limited(desk: Desk) -> None:
    content = zipped(*((f"{number:060}", b"") for number in range(12_000)))
    assert "directory of the zip is far too large" in desk.refusal(content, "csv", "x.zip")


def test_double_compression_is_refused(desk: Desk) -> None:
    assert "compressed twice" in desk.refusal(gzip.compress(zipped(("x.csv", ROWS))), "csv", "x.csv.gz")
