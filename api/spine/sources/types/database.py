"""The rows of a query over a registered connection."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from spine.schemas import Text
from spine.sources.types.base import ShortText, SourceConfig

_READS = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# Strings, quoted names and comments, as far as all databases read them alike.
_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|--[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
# What is in these comments is run by MySQL and MariaDB.
_EXECUTABLE = re.compile(r"/\*M?!", re.IGNORECASE)
# What writes although it selects: files on the server (MySQL), rows (Db2), in transactions of its own (Oracle).
_WRITES = re.compile(
    # Nothing needs to be before INTO: MySQL reads 1.5INTO as a number and a word.
    r"INTO\W+(?:OUTFILE|DUMPFILE)\b|\b(?:FINAL|NEW|OLD)\s+TABLE\s*\(|\bWITH\s+(?:FUNCTION|PROCEDURE)\b",
    re.IGNORECASE,
)
# The words without which none of it can be written.
_WORD = re.compile("[a-z]+")
_WORDS_THAT_WRITE = (
    *({"outfile"}, {"dumpfile"}),
    *({"final", "table"}, {"new", "table"}, {"old", "table"}),
    *({"with", "function"}, {"with", "procedure"}),
)
# What ends a string or comment in one database and not in another: a quote after a backslash, Oracle's q'[...]', dashes
# without a space, comments in comments, a lone carriage return.
_READ_DIFFERENTLY = re.compile(r"""\\['"`]|[qQ]'|--[^ \t\r\n]|/\*(?:(?!\*/).)*/\*|\r(?!\n)""", re.DOTALL)


def _is_one_select(query: str) -> str:
    query = query.strip().rstrip(";").rstrip()
    code = _NOT_CODE.sub(" ", query)
    if not _READS.match(code):
        raise ValueError("must be one query that reads: SELECT, WITH, VALUES or TABLE")
    if _WRITES.search(code) or any(_EXECUTABLE.match(part) for part in _NOT_CODE.findall(query)):
        raise ValueError(
            "must not write: INTO OUTFILE, INTO DUMPFILE, data-change tables, functions of its own and comments that "
            "are run are refused"
        )
    # Which database will read it is not known here; in MySQL # begins a comment.
    if _names_writing(query) and ("#" in code or _READ_DIFFERENTLY.search(query)):
        raise ValueError(
            "has words that can write (INTO OUTFILE, FINAL TABLE, WITH FUNCTION) beside quotes or comments that "
            "databases read differently: \\', q'...', #, --x or /* /* */"
        )
    return query


def _names_writing(query: str) -> bool:
    words = set(_WORD.findall(query.lower()))
    return any(needed <= words for needed in _WORDS_THAT_WRITE)


class DatabaseConfig(SourceConfig):
    """A registered connection, by name or id, and one query.

    That nothing is written is for the database to see to. The form is looked at to say early what cannot work, and for
    what no read-only transaction stops: files that MySQL writes, and transactions of their own in Oracle.
    """

    connection: ShortText
    query: Annotated[Text, Field(min_length=1, max_length=100_000), AfterValidator(_is_one_select)]
