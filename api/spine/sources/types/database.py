"""Configuration of database sources: a query over a registered connection."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from spine.schemas import Text
from spine.sources.types.base import ShortText, SourceConfig

_READS = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# Strings, quoted names and comments, as far as all databases agree on them.
_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|--[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
# MySQL and MariaDB execute the content of these comments.
_EXECUTABLE = re.compile(r"/\*M?!", re.IGNORECASE)
# Forms of SELECT that write: files on the server (MySQL), rows (Db2), or in an autonomous transaction (Oracle).
_WRITES = re.compile(
    # No word boundary before INTO: MySQL reads 1.5INTO as a number and a word.
    r"INTO\W+(?:OUTFILE|DUMPFILE)\b|\b(?:FINAL|NEW|OLD)\s+TABLE\s*\(|\bWITH\s+(?:FUNCTION|PROCEDURE)\b",
    re.IGNORECASE,
)
# Each of those forms needs all words of one of these sets.
_WORD = re.compile("[a-z]+")
_WORDS_THAT_WRITE = (
    *({"outfile"}, {"dumpfile"}),
    *({"final", "table"}, {"new", "table"}, {"old", "table"}),
    *({"with", "function"}, {"with", "procedure"}),
)
# What ends a string or comment in some databases and not in others: a quote after a backslash, Oracle's q'[...]',
# dashes without a space, nested comments, a lone carriage return.
_READ_DIFFERENTLY = re.compile(r"""\\['"`]|[qQ]'|--[^ \t\r\n]|/\*(?:(?!\*/).)*/\*|\r(?!\n)""", re.DOTALL)


def _is_one_select(query: str) -> str:
    query = query.strip().rstrip(";").rstrip()
    code = _NOT_CODE.sub(" ", query)
    if not _READS.match(code):
        raise ValueError("must be a single query that begins with SELECT, WITH, VALUES or TABLE")
    if _WRITES.search(code) or any(_EXECUTABLE.match(part) for part in _NOT_CODE.findall(query)):
        raise ValueError(
            "must not write: INTO OUTFILE, INTO DUMPFILE, data-change tables, inline functions and executable comments "
            "are refused"
        )
    # The dialect is not known here; in MySQL # begins a comment.
    if _has_writing_words(query) and ("#" in code or _READ_DIFFERENTLY.search(query)):
        raise ValueError(
            "has words that can write (INTO OUTFILE, FINAL TABLE, WITH FUNCTION) next to quotes or comments that "
            "databases parse differently: \\', q'...', #, --x or /* /* */"
        )
    return query


def _has_writing_words(query: str) -> bool:
    words = set(_WORD.findall(query.lower()))
    return any(needed <= words for needed in _WORDS_THAT_WRITE)


class DatabaseConfig(SourceConfig):
    """A registered connection, by name or id, and one query.

    The database itself prevents writes, by a read-only transaction. The query is checked here for early errors, and for
    what such a transaction does not prevent: files that MySQL writes, and autonomous transactions in Oracle.
    """

    connection: ShortText
    query: Annotated[Text, Field(min_length=1, max_length=100_000), AfterValidator(_is_one_select)]
