"""The format of all lists: `{"data": [...], "pagination": {...}}`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, TypeVarTuple

from pydantic import BaseModel, Field
from sqlalchemy import Row, Select, func
from sqlalchemy.ext.asyncio import AsyncSession

# Python 3.11 has no type parameter syntax yet.
Model = TypeVar("Model", bound=BaseModel)
Columns = TypeVarTuple("Columns")


@dataclass(frozen=True)
class PageRequest:
    """The rows of a list that a request selects."""

    offset: int
    limit: int


class Pagination(BaseModel):
    """The position of a page in its list."""

    offset: int = Field(examples=[0])
    limit: int = Field(examples=[20])
    total: int = Field(description="Exact count of the rows that match the filters.", examples=[137])
    has_more: bool = Field(examples=[True])


class CursorPagination(BaseModel):
    """The position of a page in a list that is read on from its last row."""

    offset: int = Field(description="From the cursor, if there was one.", examples=[0])
    limit: int = Field(examples=[20])
    total: int | None = Field(description="Exact count of the rows that match the filters; null with a cursor.")
    has_more: bool = Field(examples=[True])
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class Page(BaseModel, Generic[Model]):
    """One page of a list."""

    data: list[Model]
    pagination: Pagination


def make_page(rows: Sequence[Model], total: int, request: PageRequest) -> Page[Model]:
    """The page with these rows, which start at the request's offset in a list of `total` rows.

    A page can have fewer rows than its limit if some were set aside (see `spine.oddities`).
    """
    return Page(
        data=list(rows),
        pagination=Pagination(
            offset=request.offset, limit=request.limit, total=total, has_more=request.offset + request.limit < total
        ),
    )


# In quotes, as the types of SQLAlchemy 2.0 do not have one parameter for each column.
async def paginate(
    session: AsyncSession, query: "Select[*Columns]", page: PageRequest
) -> "tuple[Sequence[Row[*Columns]], int]":
    """The rows of one page of an ordered query, and the exact count of all its rows."""
    count = query.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
    total = await session.scalar(count) or 0
    rows = await session.execute(query.offset(page.offset).limit(page.limit))
    return rows.all(), total
