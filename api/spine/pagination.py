"""The one shape of lists: `{"data": [...], "pagination": {...}}`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, Field

# Python 3.11 has no type parameter syntax yet.
Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class PageRequest:
    """Which rows of a list are wanted."""

    offset: int
    limit: int


class Pagination(BaseModel):
    """Where a page lies in its list."""

    offset: int = Field(examples=[0])
    limit: int = Field(examples=[20])
    total: int = Field(description="Exact count of the rows that fit the filters.", examples=[137])
    has_more: bool = Field(examples=[True])


class Page(BaseModel, Generic[Row]):
    """One page of a list."""

    data: list[Row]
    pagination: Pagination


def make_page(rows: Sequence[Row], total: int, request: PageRequest) -> Page[Row]:
    """The page of `rows`, which begin at the request's offset in a list of `total`."""
    return Page(
        data=list(rows),
        pagination=Pagination(
            offset=request.offset, limit=request.limit, total=total, has_more=request.offset + len(rows) < total
        ),
    )
