"""The audit trail as administrators read it: pages, newest first, and the whole of it in batches."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from spine.actors import ActorKind
from spine.administration.schemas import AuditEntry, AuditPage, Outcome
from spine.database import SessionFactory, reading
from spine.pagination import CursorPagination, PageRequest
from spine.tables.audit import AuditEntry as AuditRow
from spine.tables.base import UtcDateTime
from spine.tables.presenting import present_each

ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class AuditQuery:
    """Which entries are wanted: several values of one filter are alternatives, and all filters must match."""

    actors: Sequence[str] = ()
    actions: Sequence[str] = ()
    # A type (`channel`), or one resource by its id or name (`channel:desk`).
    resources: Sequence[str] = ()
    request_ids: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def statement(self) -> Select[AuditRow]:
        """The rows that match, newest first."""
        words: list[tuple[Any, Sequence[str]]] = [
            (AuditRow.actor, self.actors),
            (AuditRow.action, self.actions),
            (AuditRow.request_id, self.request_ids),
        ]
        conditions: list[ColumnElement[bool]] = [column.in_(values) for column, values in words if values]
        if self.resources:
            conditions.append(or_(*(_is_resource(one) for one in self.resources)))
        if self.since is not None:
            conditions.append(AuditRow.at >= self.since)
        if self.until is not None:
            conditions.append(AuditRow.at <= self.until)
        return select(AuditRow).where(*conditions).order_by(AuditRow.at.desc(), AuditRow.id.desc())


def _is_resource(wanted: str) -> ColumnElement[bool]:
    kind, separator, one = wanted.partition(":")
    if not separator:
        return AuditRow.resource_type == kind
    return and_(AuditRow.resource_type == kind, or_(AuditRow.resource_id == one, AuditRow.resource_name == one))


async def list_entries(session: AsyncSession, query: AuditQuery, page: PageRequest, cursor: str | None) -> AuditPage:
    """A page of entries, newest first: from `cursor` on, or by its offset."""
    statement, total = query.statement(), None
    if cursor is not None:
        statement = _after(statement, cursor)
    else:
        count = statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        total = await session.scalar(count) or 0
        statement = statement.offset(page.offset)
    # One more than is shown says whether there are more.
    rows = (await session.scalars(statement.limit(page.limit + 1))).all()
    shown, has_more = rows[: page.limit], len(rows) > page.limit
    position = CursorPagination(
        offset=0 if cursor else page.offset,
        limit=page.limit,
        total=total,
        has_more=has_more,
        next_cursor=_cursor_after(shown) if has_more else None,
    )
    return AuditPage(data=present_each(shown, _present, lambda row: row), pagination=position)


async def every_entry(sessions: SessionFactory, query: AuditQuery) -> AsyncIterator[AuditEntry]:
    """Every entry that matches, newest first, with one short read for each batch. Raises `DatabaseUnavailable`."""
    cursor: str | None = None
    while True:
        statement = query.statement() if cursor is None else _after(query.statement(), cursor)
        async with reading(sessions) as session:
            rows = (await session.scalars(statement.limit(ROWS_AT_ONCE))).all()
        for entry in present_each(rows, _present, lambda row: row):
            yield entry
        cursor = _cursor_after(rows)
        if len(rows) < ROWS_AT_ONCE or cursor is None:
            return


def _cursor_after(rows: Sequence[AuditRow]) -> str | None:
    """The place behind the last row; a row that cannot be read has no place."""
    last = next((row for row in reversed(rows) if not row.unreadable_fields()), None)
    if last is None:
        return None
    return urlsafe_b64encode(json.dumps([last.at.isoformat(), last.id]).encode()).decode().rstrip("=")


def _after(statement: Select[AuditRow], cursor: str) -> Select[AuditRow]:
    at, row_id = _place_of(cursor)
    place: Any = tuple_(literal(at, UtcDateTime()), literal(row_id))
    return statement.where(tuple_(AuditRow.at, AuditRow.id) < place)


def _place_of(cursor: str) -> tuple[datetime, str]:
    try:
        at, row_id = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not isinstance(row_id, str) or not row_id.isalnum():
            raise ValueError
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError("must be the next_cursor of a page") from None
    return moment, row_id


def check_cursor(cursor: str) -> str:
    """The cursor. Raises `ValueError` for text that is not one."""
    _place_of(cursor)
    return cursor


# A cursor in a query.
Cursor = Annotated[str, Field(max_length=500), AfterValidator(check_cursor)]


def _present(row: AuditRow) -> AuditEntry:
    names = set(AuditEntry.model_fields) - {"actor_kind", "outcome"}
    return AuditEntry(
        actor_kind=ActorKind(row.actor_kind),
        outcome=Outcome(row.outcome),
        **{name: getattr(row, name) for name in names},
    )
