"""Parsers of row-based files: they count rows, validate them, and read them as Arrow tables.

The memory that they need does not grow with the file. Any content that does not parse raises a `FetchFailure` of
category PARSE, or SOURCE if it is another document, and nothing else.
"""

from spine.sources.parsers.config import ParserConfig, ParserType, parser_for
from spine.sources.parsers.extremes import check_joins
from spine.sources.parsers.parse import NO_ROWS, FileToParse, parse, shows_encoding, write_table
from spine.sources.parsers.row_counter import BadRow, Parsed

__all__ = [
    "NO_ROWS",
    "BadRow",
    "FileToParse",
    "Parsed",
    "ParserConfig",
    "ParserType",
    "check_joins",
    "parse",
    "parser_for",
    "shows_encoding",
    "write_table",
]
