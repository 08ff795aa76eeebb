"""Files of rows: counting them, checking their shape, and reading them as Arrow tables.

`parse` needs the same memory whatever the size of a file. Whatever the bytes, all that they raise is a
`FetchFailure` of category PARSE.
"""

from spine.sources.parsers.config import ParserConfig, ParserType, parser_for
from spine.sources.parsers.parse import parse, to_arrow
from spine.sources.parsers.row_counter import BadRow, Parsed

__all__ = ["BadRow", "Parsed", "ParserConfig", "ParserType", "parse", "parser_for", "to_arrow"]
