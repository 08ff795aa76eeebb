"""The rows of a query over a registered connection."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from api.schemas import Text
from api.sources.types.base import ShortText, SourceConfig

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_READS = re.compile(r"(?:\(\s*)*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# What writes although it selects: files on the server (MySQL), and rows (Db2).
_WRITES = re.compile(r"\bINTO\s+(?:OUTFILE|DUMPFILE)\b|\b(?:FINAL|NEW|OLD)\s+TABLE\s*\(", re.IGNORECASE)


def _is_one_select(query: str) -> str:
    query = query.strip().rstrip(";").rstrip()
    if not _READS.match(query, _COMMENTS.match(query).end()):  # type: ignore[union-attr]
        raise ValueError("must be one query that reads: SELECT, WITH, VALUES or TABLE")
    if _WRITES.search(query):
        raise ValueError("must not write: INTO OUTFILE, INTO DUMPFILE and data-change tables are refused")
    return query


class DatabaseConfig(SourceConfig):
    """A registered connection, by name or id, and one query.

    The form is only looked at to say early what cannot work; that nothing is written is for the database to see to.
    """

    connection: ShortText
    query: Annotated[Text, Field(min_length=1, max_length=100_000), AfterValidator(_is_one_select)]
