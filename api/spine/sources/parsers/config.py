"""How the files of a source are parsed."""

import codecs
from enum import StrEnum
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

LONGEST_NAME = 1_000
MOST_FOOTER_ROWS = 100
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


class RecordsLayout(StrEnum):
    """How records are arranged in JSON; the values are those of `parser_config.records_layout`."""

    ROWS = "rows"
    KEYED = "keyed"
    COLUMNS = "columns"
    ARRAYS = "arrays"


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


def _regular_expression(pattern: str) -> str:
    try:
        # Arrow's engine needs time in proportion to the text, whatever the pattern is.
        found = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
    except (pa.ArrowException, UnicodeError) as error:
        reason = str(error).removeprefix("Invalid regular expression: ") if isinstance(error, pa.ArrowException) else ""
        raise ValueError(f"must be a regular expression as RE2 takes it: {reason or 'not valid text'}") from None
    if found:
        raise ValueError("must not match an empty row, because it would match every row")
    return pattern


def _dotted_names(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError("must be names separated by dots")
    return path


def _element_names(path: str) -> str:
    if not all(path.removeprefix("/").split("/")):
        raise ValueError("must be names of elements separated by slashes, from the root")
    return path


_Character = Annotated[str, StringConstraints(min_length=1, max_length=1), AfterValidator(_ascii_character)]
_ColumnName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_Prefix = Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_-]*)?$", max_length=100)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class ParserConfig(BaseModel):
    """The `parser_config` of a source; fields that do not apply to the format are ignored.

    `delimiter`: by default that of the format. `skip_rows`: the number of lines before the header. `columns`: types by
    name; without a header, also the names in order. `required_columns`: a file without them does not parse.
    `records_path`: the path of the records in JSON, as names separated by dots. `records_layout`: how they are arranged
    there: `rows` is a list of objects; `keyed` an object of objects, whose names become the column `key_column`;
    `columns` an object of arrays, one for each column; `arrays` a list of arrays, with the column names in the first
    one, or at `names_path`. `flatten`: whether fields of nested objects become columns, named by their path (`a.b`).

    `row_tag`: the XML element that is a row, by default each child of the root; of nested elements of that name, the
    innermost. `row_path`: the path of the rows from the root, as names separated by slashes. `parent_attributes`: the
    attributes of enclosing elements that become columns of each row. `namespaces`: the URIs of XML namespaces by the
    prefix that names of columns get, whichever prefix a document uses; an empty prefix adds nothing.

    `max_bad_rows`: a file with more invalid rows does not parse; `max_bad_fraction`: nor does one in which more than
    this part of all rows is invalid, 0 to 1.
    `skip_footer_rows`: the number of rows at the end that are no data. `footer_pattern`: a regular expression (RE2);
    rows at the end in which it is found are no data. With both, each of the `skip_footer_rows` rows must match.
    `footer_count_field`: the field of the footer, from 1, that has the number of rows before it; without the other
    two, the footer is the last row. `trim`: remove spaces and tabs around names and values, but not within quotes.
    `archive_member`: the name of the file in a zip, or a pattern that one name matches.
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
    records_layout: RecordsLayout = RecordsLayout.ROWS
    key_column: _Name = "key"
    names_path: Annotated[_Name, AfterValidator(_dotted_names)] | None = None
    flatten: bool = Field(default=False, strict=True)
    row_tag: _Name | None = None
    row_path: Annotated[_Name, AfterValidator(_element_names)] | None = None
    parent_attributes: Annotated[list[_Name], Field(max_length=100)] | None = None
    namespaces: Annotated[dict[_Prefix, _Name], Field(max_length=100)] | None = None
    max_bad_rows: Annotated[int, Field(ge=0, strict=True)] | None = None
    max_bad_fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = 0.01
    skip_footer_rows: Annotated[int, Field(ge=0, le=MOST_FOOTER_ROWS, strict=True)] = 0
    footer_pattern: Annotated[_Pattern, AfterValidator(_regular_expression)] | None = None
    footer_count_field: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    trim: bool = Field(default=False, strict=True)
    archive_member: _Name | None = None
    max_expanded_bytes: Annotated[int, Field(ge=1, le=2**60, strict=True)] | None = None

    @model_validator(mode="after")
    def _characters_differ(self) -> Self:
        if self.delimiter is not None and self.delimiter == self.quote_char:
            raise ValueError("delimiter and quote_char must differ")
        return self

    @model_validator(mode="after")
    def _one_way_to_find_rows(self) -> Self:
        if self.row_tag is not None and self.row_path is not None:
            raise ValueError("set row_tag or row_path, not both")
        if self.names_path is not None and self.records_layout is not RecordsLayout.ARRAYS:
            raise ValueError("names_path applies to the records_layout arrays only")
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
