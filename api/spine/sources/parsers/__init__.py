"""Parsers of row-based files: they count rows, validate them, and read them as Arrow tables.

The memory that `parse` needs does not grow with the file. Any content that does not parse raises a `FetchFailure` of
category PARSE and nothing else.
"""

from spine.sources.parsers.config import ParserConfig, ParserType, parser_for
from spine.sources.parsers.parse import parse, to_arrow
from spine.sources.parsers.row_counter import BadRow, Parsed

__all__ = ["BadRow", "Parsed", "ParserConfig", "ParserType", "parse", "parser_for", "to_arrow"]
