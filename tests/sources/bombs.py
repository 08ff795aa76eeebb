"""Small content that takes much memory or time to read, by name: the format, the content and its configuration."""

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Bomb:
    """How a bomb is made, and what shows that it was understood; without `refusal` its rows are counted."""

    name: str
    content: Callable[[], bytes]
    refusal: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    # Of the table, if that has another outcome than the count of rows.
    table_refusal: str | None = None


def repeated(unit: bytes, megabytes: int, start: bytes = b"", end: bytes = b"") -> bytes:
    """A gzip file that expands to this many megabytes of a unit."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(start)
        block = unit * max(1, MEGABYTE // len(unit))
        for _ in range(megabytes):
            file.write(block)
        file.write(end)
    return out.getvalue()


def parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", **options)
    return out.getvalue()


def fixed_length_dictionary(length: int = 262_144, rows: int = 16_384) -> bytes:
    values = pa.array([b"x" * length], pa.binary(length))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), values)
    out = io.BytesIO()
    schema = pa.schema([("a", column.type)])
    with pq.ParquetWriter(out, schema, compression="zstd", dictionary_pagesize_limit=1 << 30) as writer:
        group = pa.record_batch([column], schema=schema)
        writer.write_table(pa.Table.from_batches([group] * (rows // 64)), row_group_size=rows)
    return out.getvalue()


def long_texts() -> bytes:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), ["y" * MEGABYTE])
    return parquet(pa.table({"a": column}))


def one_list(values: int) -> bytes:
    column = pa.ListArray.from_arrays([0, values], pa.nulls(values, pa.int64()))
    return parquet(pa.table({"a": column}))


def nested_structs(depth: int) -> bytes:
    column: pa.Array = pa.array([1])
    for _ in range(depth):
        column = pa.StructArray.from_arrays([column], ["s"])
    return parquet(pa.table({"a": column}))


def nested_lists(depth: int) -> bytes:
    column: pa.Array = pa.array([1])
    for _ in range(depth):
        column = pa.ListArray.from_arrays([0, 1], column)
    return parquet(pa.table({"a": column}))


def many_groups() -> bytes:
    return parquet(pa.table({f"c{at}": [0] * 3_000 for at in range(20)}), row_group_size=1)


def lying_pages() -> bytes:
    """Parquet whose page announces two gigabytes of content."""
    content = bytearray(parquet(pa.table({"a": list(range(5_000))}), use_dictionary=False))
    # The second field of a page header is its uncompressed size, as a zigzag varint.
    at = content.index(b"\x15\x00\x15", 4) + 3
    end = next(one for one in range(at, at + 6) if content[one] < 0x80) + 1
    content[at:end] = b"\xfe\xff\xff\xff\x0f"[: end - at - 1] + b"\x7f" if end - at < 5 else b"\xfe\xff\xff\xff\x0f"
    return bytes(content)


def many_columns() -> bytes:
    return parquet(pa.table({f"c{at}": [0] for at in range(20_000)}))


def zip_bomb(megabytes: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as member:
        for _ in range(megabytes):
            member.write(b"1\n" * (MEGABYTE // 2))
    return out.getvalue()


def zip_of_many() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}", b"")
    return out.getvalue()


def zstd_bomb(megabytes: int) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        for _ in range(megabytes):
            stream.write(b"1\n" * (MEGABYTE // 2))
    return bytes(out.getvalue())


def zstd_window() -> bytes:
    """A zstd frame that requests a window of two gigabytes."""
    window = (31 - 10) << 3
    block = struct.pack("<I", (1 << 3) | (1 << 1) | 1)[:3] + b"1"
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + block


def gzip_members(count: int) -> bytes:
    return gzip.compress(b"", mtime=0) * count + gzip.compress(b"a\n1\n", mtime=0)


def gzip_with_long_name() -> bytes:
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(b"a\n1\n") + raw.flush()
    end = struct.pack("<II", zlib.crc32(b"a\n1\n"), 4)
    return b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (64 * MEGABYTE) + b"\0" + body + end


def billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 12))
    return f'<!DOCTYPE r [<!ENTITY e0 "ha">{entities}]><r><row>&e11;</row></r>'.encode()


EXPANDS = "expands to more than"
TOO_LONG = "longer than 16 MB"
MEMORY = "needs more memory"
XML_ROW = (b"<r><row>", b"</row></r>")
TYPED = {"columns": {"a": "integer", "b": "date"}}
# Invalid rows are counted, whatever their part is.
ANY_ROWS = {"max_bad_fraction": 1.0}

# Whoever allows any size gets the whole table, if the memory of the process is enough.
OR_NONE = f"^$|{MEMORY}"

BOMBS = [
    Bomb("fixed-dictionary.parquet", fixed_length_dictionary, EXPANDS),
    Bomb("fixed-dictionary-allowed.parquet", fixed_length_dictionary, OR_NONE, {"max_expanded_bytes": 2**50}, OR_NONE),
    Bomb("long-texts.parquet", long_texts, None, {}, f"table takes more than|{MEMORY}"),
    Bomb("one-list.parquet", lambda: one_list(90_000_000), f"{MEMORY}|{EXPANDS}"),
    Bomb("one-list-allowed.parquet", lambda: one_list(90_000_000), MEMORY, {"max_expanded_bytes": 2**50}),
    Bomb("nested-structs.parquet", lambda: nested_structs(900), "damaged or not supported"),
    Bomb("nested-lists.parquet", lambda: nested_lists(200), "damaged or not supported"),
    Bomb("many-groups.parquet", many_groups, None),
    Bomb("lying-pages.parquet", lying_pages, f"damaged|{MEMORY}"),
    Bomb("many-columns.parquet", many_columns, "more than 10,000 columns"),
    Bomb("long-run.parquet", lambda: parquet(pa.table({"a": pa.array([7] * 90_000_000, pa.int8())})), None),
    Bomb("expanding.parquet.gz", lambda: repeated(b"\0", 200, b"PAR1"), EXPANDS),
    Bomb("children.xml", lambda: XML_ROW[0] + b"<a/>" * 3_900_000 + XML_ROW[1], None),
    Bomb("children-with-text.xml", lambda: XML_ROW[0] + b"<a>x</a>" * 1_900_000 + XML_ROW[1], None),
    Bomb(
        "names.xml",
        lambda: XML_ROW[0] + b"".join(b"<a%d/>" % at for at in range(200_000)) + XML_ROW[1],
        "different names",
    ),
    Bomb("attributes.xml", lambda: b"<r><row%s/></r>" % b"".join(b' a%d="1"' % at for at in range(90_000)), "columns"),
    Bomb("one-text.xml.gz", lambda: repeated(b"x", 90, *XML_ROW), TOO_LONG),
    Bomb("line-ends.xml.gz", lambda: repeated(b"\n", 14, *XML_ROW), None),
    Bomb("one-attribute.xml.gz", lambda: repeated(b"x", 90, b'<r><row a="', b'"/></r>'), TOO_LONG),
    Bomb("comment.xml.gz", lambda: repeated(b"x", 90, b"<r><!--", b"--></r>"), TOO_LONG),
    Bomb("deep.xml.gz", lambda: repeated(b"<a>", 90), "nested too deeply"),
    Bomb("laughs.xml", billion_laughs, "document type"),
    Bomb("external.xml", lambda: b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>', "document type"),
    Bomb("rows.xml.gz", lambda: repeated(b"<row/>", 6, b"<r>", b"</r>"), None),
    Bomb("deep.json", lambda: b"[" * 5_000_000, "nested too deeply|not well-formed"),
    Bomb("lists.json", lambda: b'[{"a":[' + b"[]," * 5_200_000 + b"0]}]", MEMORY),
    Bomb("objects.json", lambda: b'[{"a":[' + b'{"":{}},' * 1_900_000 + b"0]}]", MEMORY),
    Bomb("one-text.json.gz", lambda: repeated(b"x", 90, b'[{"a":"', b'"}]'), TOO_LONG),
    Bomb("one-number.json", lambda: b'[{"a":' + b"9" * 15_000_000 + b"}]", "not well-formed"),
    Bomb("exponent.json", lambda: b'[{"a":1e999999999}]', None),
    Bomb("spaces.json.gz", lambda: repeated(b" ", 90, b"[", b"{}]"), None),
    Bomb("keys.json", lambda: b"[{%s}]" % b",".join(b'"%d":1' % at for at in range(1_000_000)), "columns"),
    Bomb(
        "sparse.jsonl",
        lambda: b"".join(b'{"%d":1}\n' % (at % 9_999) for at in range(2_000_000)),
        None,
        {},
        f"table takes more than|{MEMORY}",
    ),
    Bomb("one-line.jsonl.gz", lambda: repeated(b"x", 90), TOO_LONG),
    Bomb("empty-lines.jsonl.gz", lambda: repeated(b"\n", 90), None),
    Bomb("one-field.csv.gz", lambda: repeated(b"x", 90, b"a\n"), TOO_LONG),
    Bomb("header.csv.gz", lambda: repeated(b"x,", 90), TOO_LONG),
    Bomb("columns.csv", lambda: b",".join(b"%d" % at for at in range(1_500_000)), "columns"),
    Bomb("open-quote.csv.gz", lambda: repeated(b"x\n", 90, b'a\n"'), "never closed"),
    Bomb("fields.csv.gz", lambda: repeated(b",", 14, b"a,b\n", b"\n") * 3, None, ANY_ROWS),
    Bomb("wide-row.csv", lambda: b"a,b\n1,2\n" + b"," * 15_000_000 + b"\n", None, ANY_ROWS),
    Bomb("line-ends.csv.gz", lambda: repeated(b"\n", 90, b"a\n1"), None),
    Bomb("nul.csv.gz", lambda: repeated(b"\0", 90, b"a\n"), TOO_LONG),
    Bomb(
        "invalid-values.csv",
        lambda: b"a,b\n1,2026-01-05\n" + b"".join(b"9%019d,\n" % at for at in range(200_000)),
        None,
        {**TYPED, **ANY_ROWS},
    ),
    Bomb("bomb.csv.gz", lambda: repeated(b"1\n", 300), EXPANDS),
    Bomb("bomb.csv.zip", lambda: zip_bomb(300), EXPANDS),
    Bomb("bomb.csv.zst", lambda: zstd_bomb(300), EXPANDS),
    Bomb("bomb.csv.bz2", lambda: bz2.compress(b"1\n" * (150 * MEGABYTE)), EXPANDS),
    Bomb("nested.csv.gz", lambda: gzip.compress(repeated(b"1\n", 300)), "compressed twice"),
    Bomb("many-files.csv.zip", zip_of_many, "far too large|60000 files"),
    Bomb("window.csv.zst", zstd_window, "damaged"),
    Bomb("members.csv.gz", lambda: gzip_members(200_000), None),
    Bomb("long-name.csv.gz", gzip_with_long_name, None),
    Bomb("utf-7.csv", lambda: b"a\n+" + b"A" * 15_000_000 + b"-\n", None, {"encoding": "utf-7"}),
    Bomb("iso-2022.csv", lambda: b"a\n" + b"\x1b$B\x1b(B" * 2_000_000 + b"\n", None, {"encoding": "iso2022_jp"}),
    Bomb("utf-16.csv", lambda: b"\xff\xfe" + "a\n".encode("utf-16-le") + b"\x00\xd8" * 9_000_000, "not valid", {
        "encoding": "utf-16"
    }),
]  # fmt: skip
