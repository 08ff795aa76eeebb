"""Configuration of database sources: a query over a registered connection."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from spine.schemas import Text
from spine.sources.types.base import ShortText, SourceConfig

_READS = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# Strings, quoted names and comments, as far as all databases agree on them.
_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|--[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)


def _is_one_select(query: str) -> str:
    query = query.strip().rstrip(";").rstrip()
    if not _READS.match(_NOT_CODE.sub(" ", query)):
        raise ValueError("must be a single query that begins with SELECT, WITH, VALUES or TABLE")
    return query


class DatabaseConfig(SourceConfig):
    """A registered connection, by name or id, and one query.

    A read-only transaction prevents writes in the database. Only the beginning of the query is checked here, for
    early errors. For what a read-only transaction does not prevent, see `spine.connections.drivers.queries`.
    """

    connection: ShortText
    query: Annotated[Text, Field(min_length=1, max_length=100_000), AfterValidator(_is_one_select)]
