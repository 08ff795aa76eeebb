"""How a source's files are to be parsed."""

import codecs
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

LONGEST_NAME = 1_000
COMPRESSION_SUFFIXES = (".gz", ".zip", ".zst", ".bz2")
# They are text encodings to Python, but no file is written in them.
_NOT_OF_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}


class ParserType(StrEnum):
    """What a file holds; the values are those of `parser_type`."""

    CSV = "csv"
    PSV = "psv"
    TSV = "tsv"
    JSON = "json"
    JSONL = "jsonl"
    XML = "xml"
    PARQUET = "parquet"


class ColumnType(StrEnum):
    """What the values of a column are; the values are those of `parser_config.columns`."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DECIMAL = "decimal"


_BY_EXTENSION = {f".{kind}": kind for kind in ParserType} | {".ndjson": ParserType.JSONL}


def is_utf8(encoding: str) -> bool:
    """Whether this is a name of UTF-8, with or without a byte-order mark."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _text_codec(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        # Python names a codec that is not one of text only when it is used.
        "a".encode(name, "ignore")
    except (LookupError, ValueError):
        raise ValueError("must be a text encoding that Python knows, such as utf-8 or cp1252") from None
    if codec.incrementaldecoder is None or codec.name.replace("_", "-") in _NOT_OF_FILES:
        raise ValueError("is not an encoding of files")
    return name


def _ascii_mark(char: str) -> str:
    if not char.isascii() or char in "\r\n\0":
        raise ValueError("must be one ASCII character and no line end")
    return char


def _without_gaps(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError("must be names with dots between them")
    return path


_Mark = Annotated[str, StringConstraints(min_length=1, max_length=1), AfterValidator(_ascii_mark)]
_ColumnName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class ParserConfig(BaseModel):
    """What a source's `parser_config` may hold; what does not concern the type of its files is without effect.

    `delimiter`: by default the one of the type. `skip_rows`: lines before the header. `columns`: types by name; without
    a header, the names in order, too. `required_columns`: a file without them does not parse. `records_path`: where the
    list of records is in JSON, as names with dots between them. `row_tag`: the element that is a row of XML, by
    default each child of the root. `max_bad_rows`: a file with more does not parse. `max_expanded_bytes`: what
    compressed content may expand to, by default 200 times its size, and 100 MB at least.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    encoding: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_text_codec)] = "utf-8"
    delimiter: _Mark | None = None
    quote_char: _Mark | None = '"'
    has_header: bool = Field(default=True, strict=True)
    skip_rows: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    columns: Annotated[dict[_ColumnName, ColumnType], Field(max_length=10_000)] | None = None
    required_columns: Annotated[list[_ColumnName], Field(max_length=10_000)] | None = None
    records_path: Annotated[_Name, AfterValidator(_without_gaps)] | None = None
    row_tag: _Name | None = None
    max_bad_rows: Annotated[int, Field(ge=0, strict=True)] | None = None
    max_expanded_bytes: Annotated[int, Field(ge=1, le=2**60, strict=True)] | None = None

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.delimiter is not None and self.delimiter == self.quote_char:
            raise ValueError("delimiter and quote_char must differ")
        return self


def compression_suffix(name: str) -> str | None:
    """The suffix of a compressed file (`.gz`), in lower case; None without one."""
    lower = name.lower()
    return next((suffix for suffix in COMPRESSION_SUFFIXES if lower.endswith(suffix)), None)


def parser_for(name: str, parser_type: str | None) -> ParserType | None:
    """How a file is parsed: as it is told, else by its extension, below one suffix of compression.

    None: the content is opaque, and no rows are counted. Raises `ValueError` for a type that does not exist.
    """
    if parser_type is not None:
        return ParserType(parser_type)
    stem = name[: -len(compression_suffix(name) or "")] if compression_suffix(name) else name
    dot = stem.rfind(".")
    return _BY_EXTENSION.get(stem[dot:].lower()) if dot >= 0 else None
