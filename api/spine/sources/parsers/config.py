"""How the files of a source are parsed."""

import codecs
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

LONGEST_NAME = 1_000
COMPRESSION_SUFFIXES = (".gz", ".zip", ".zst", ".bz2")
# Python's text codecs that are not file encodings.
_NOT_FOR_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}


class ParserType(StrEnum):
    """The format of a file; the values are those of `parser_type`."""

    CSV = "csv"
    PSV = "psv"
    TSV = "tsv"
    JSON = "json"
    JSONL = "jsonl"
    XML = "xml"
    PARQUET = "parquet"


class ColumnType(StrEnum):
    """The type of a column; the values are those of `parser_config.columns`."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DECIMAL = "decimal"


_BY_EXTENSION = {f".{kind}": kind for kind in ParserType} | {".ndjson": ParserType.JSONL}


def is_utf8(encoding: str) -> bool:
    """Whether this encoding is UTF-8, with or without a byte-order mark."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _text_codec(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        # Python reports codecs that are not for text only when they are used.
        "a".encode(name, "ignore")
    except (LookupError, ValueError):
        raise ValueError("must be a text encoding that Python supports, such as utf-8 or cp1252") from None
    if codec.incrementaldecoder is None or codec.name.replace("_", "-") in _NOT_FOR_FILES:
        raise ValueError("is not a file encoding")
    return name


def _ascii_character(char: str) -> str:
    if not char.isascii() or char in "\r\n\0":
        raise ValueError("must be one ASCII character other than a line end or NUL")
    return char


def _dotted_names(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError("must be names separated by dots")
    return path


_Character = Annotated[str, StringConstraints(min_length=1, max_length=1), AfterValidator(_ascii_character)]
_ColumnName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class ParserConfig(BaseModel):
    """The `parser_config` of a source; fields that do not apply to the format are ignored.

    `delimiter`: by default that of the format. `skip_rows`: the number of lines before the header. `columns`: types by
    name; without a header, also the names in order. `required_columns`: a file without them does not parse.
    `records_path`: the path of the list of records in JSON, as names separated by dots. `row_tag`: the XML element that
    is a row, by default each child of the root. `max_bad_rows`: a file with more invalid rows does not parse.
    `max_expanded_bytes`: the limit for decompressed content, by default 200 times the compressed size and at least
    100 MB.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    encoding: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_text_codec)] = "utf-8"
    delimiter: _Character | None = None
    quote_char: _Character | None = '"'
    has_header: bool = Field(default=True, strict=True)
    skip_rows: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    columns: Annotated[dict[_ColumnName, ColumnType], Field(max_length=10_000)] | None = None
    required_columns: Annotated[list[_ColumnName], Field(max_length=10_000)] | None = None
    records_path: Annotated[_Name, AfterValidator(_dotted_names)] | None = None
    row_tag: _Name | None = None
    max_bad_rows: Annotated[int, Field(ge=0, strict=True)] | None = None
    max_expanded_bytes: Annotated[int, Field(ge=1, le=2**60, strict=True)] | None = None

    @model_validator(mode="after")
    def _characters_differ(self) -> Self:
        if self.delimiter is not None and self.delimiter == self.quote_char:
            raise ValueError("delimiter and quote_char must differ")
        return self


def compression_suffix(name: str) -> str | None:
    """The suffix of a compressed file (`.gz`), in lower case; None without one."""
    lower = name.lower()
    return next((suffix for suffix in COMPRESSION_SUFFIXES if lower.endswith(suffix)), None)


def parser_for(name: str, parser_type: str | None) -> ParserType | None:
    """The format of a file: the configured one, else by the extension before a compression suffix.

    None means that the content is opaque and its rows are not counted. Raises `ValueError` for an unknown type.
    """
    if parser_type is not None:
        return ParserType(parser_type)
    stem = name[: -len(compression_suffix(name) or "")] if compression_suffix(name) else name
    dot = stem.rfind(".")
    return _BY_EXTENSION.get(stem[dot:].lower()) if dot >= 0 else None
