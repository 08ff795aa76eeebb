"""Parsers of row-based files: they count rows, validate them, and read them as Arrow tables.

The memory that they need does not grow with the file. Any content that does not parse raises a `FetchFailure` of
category PARSE and nothing else.
"""

from spine.sources.parsers.config import ParserConfig, ParserType, parser_for
from spine.sources.parsers.parse import FileToParse, parse, write_table
from spine.sources.parsers.row_counter import BadRow, Parsed

__all__ = ["BadRow", "FileToParse", "Parsed", "ParserConfig", "ParserType", "parse", "parser_for", "write_table"]
