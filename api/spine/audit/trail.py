"""Writes the audit trail: one entry for each change, never one for what was refused.

A change of Spine's own rows is recorded in the transaction that makes it (`record`). A change in Prefect cannot be part
of a transaction here, so its entry is written before it, as STARTED, and completed after it (`changing`). An entry that
stays STARTED says that the change may have been made: the process died, or Prefect did not answer.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

import structlog
from sqlalchemy import Table, bindparam, delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from spine.actors import Actor, ActorKind
from spine.audit.log_lines import add_line
from spine.audit.masking import kept
from spine.database import SessionFactory, transaction
from spine.errors import DatabaseUnavailable, SpineError
from spine.grouped import Grouped
from spine.tables.audit import DONE, LONGEST_ACTOR, LONGEST_RESOURCE, STARTED, AuditEntry
from spine.tables.base import new_id, utc_now
from spine.text import shortened, storable

MOST_AT_ONCE = 64

State = dict[str, Any] | None

log = structlog.get_logger("spine.audit")

_ENTRIES = cast("Table", AuditEntry.__table__)
_AFTERWARDS = ("resource_id", "resource_name", "after")
_MINE = _ENTRIES.c.id == bindparam("entry_id")
_COMPLETION = (
    update(_ENTRIES).where(_MINE).values(outcome=DONE, **{name: bindparam(f"new_{name}") for name in _AFTERWARDS})
)
_DELETION = delete(_ENTRIES).where(_MINE)
_SPINE = Actor("spine", ActorKind.SYSTEM)


class _Kind(Enum):
    BEGIN = auto()
    COMPLETE = auto()
    FORGET = auto()


@dataclass(frozen=True)
class _Write:
    """One thing to write: a whole entry, or what is known of the entry with `entry_id`."""

    kind: _Kind
    values: dict[str, Any]


class Trail:
    """Writes the entries of changes in Prefect for one process; those that wait together share a transaction."""

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._written = Grouped[_Write, bool](self._write, MOST_AT_ONCE)
        is_sqlite = sessions.kw["bind"].dialect.name == "sqlite"
        insertion = sqlite.insert(_ENTRIES) if is_sqlite else postgresql.insert(_ENTRIES)
        self._insertion = insertion.on_conflict_do_nothing().returning(_ENTRIES.c.id)

    async def begin(self, entry: dict[str, Any]) -> bool:
        """Write an entry, unless there is one with its id; return whether it is new. Raises `DatabaseUnavailable`."""
        return await self._written.do(_Write(_Kind.BEGIN, entry))

    async def complete(self, entry_id: str, change: "Change") -> None:
        """Set an entry to DONE, with what is known after the change."""
        await self._finish(_Write(_Kind.COMPLETE, {"entry_id": entry_id, **change.known_afterwards()}))

    async def forget(self, entry_id: str) -> None:
        """Delete the entry of a change that was refused."""
        await self._finish(_Write(_Kind.FORGET, {"entry_id": entry_id}))

    async def _finish(self, write: _Write) -> None:
        try:
            await self._written.do(write)
        except DatabaseUnavailable as reason:
            # The change is made or refused already, and its answer must say so.
            log.warning("audit_entry_not_completed", reason=reason.detail)

    async def _write(self, writes: Sequence[_Write]) -> list[bool]:
        of_kind = {kind: [one.values for one in writes if one.kind is kind] for kind in _Kind}
        new = set[str]()
        async with transaction(self._sessions) as session:
            if begun := of_kind[_Kind.BEGIN]:
                new = set(await session.scalars(self._insertion, begun))
            if completed := of_kind[_Kind.COMPLETE]:
                await session.execute(_COMPLETION, completed)
            if forgotten := of_kind[_Kind.FORGET]:
                await session.execute(_DELETION, forgotten)
        return [one.values.get("id") in new for one in writes]


@dataclass(frozen=True)
class _Acting:
    actor: Actor
    trail: Trail | None = None
    # Whether all that is changed now is part of a change that has an entry already.
    within: bool = False


_NOBODY = _Acting(_SPINE)
_acting: ContextVar[_Acting] = ContextVar("spine_acting", default=_NOBODY)


@contextmanager
def acting_as(actor: Actor, trail: Trail | None = None) -> Iterator[None]:
    """Attribute the changes of the block to `actor`. Those in Prefect are recorded only with a `trail`."""
    token = _acting.set(_Acting(actor, trail))
    try:
        yield
    finally:
        _acting.reset(token)


@contextmanager
def within_another_change() -> Iterator[None]:
    """Record nothing of the block: it is part of a change that has an entry of its own."""
    now = _acting.get()
    token = _acting.set(_Acting(now.actor, now.trail, within=True))
    try:
        yield
    finally:
        _acting.reset(token)


@dataclass
class Change:
    """A change that is being made; what is known only afterwards is set in the block of `changing`."""

    action: str
    resource_type: str
    resource_id: str
    resource_name: str | None = None
    before: State = None
    after: State = None

    def values(self) -> dict[str, Any]:
        """The columns of the entry that say what was changed."""
        return {
            "action": self.action,
            "resource_type": self.resource_type,
            "resource_id": shortened(storable(self.resource_id), LONGEST_RESOURCE),
            "resource_name": _name(self.resource_name),
            "before": kept(self.before),
            "after": kept(self.after),
        }

    def known_afterwards(self) -> dict[str, Any]:
        """Those that the block of `changing` can set."""
        values = self.values()
        return {f"new_{name}": values[name] for name in _AFTERWARDS}


async def record(
    session: AsyncSession,
    action: str,
    resource_type: str,
    resource_id: object,
    resource_name: str | None = None,
    *,
    before: State = None,
    after: State = None,
    outcome: str = DONE,
    operation_id: str | None = None,
) -> str:
    """Record a change in the transaction that makes it, and return the id of its entry.

    `action` is a verb such as `created` or `deleted`; `before` and `after` are the fields of the resource, of which
    secrets are masked. A change that continues in Prefect is STARTED until `complete` is called. The entry of an
    operation has its id.
    """
    change = Change(action, resource_type, str(resource_id), resource_name, before, after)
    entry = entry_of(change, outcome, operation_id)
    await record_entries(session, [entry])
    _log(change)
    return str(entry["id"])


async def complete(sessions: SessionFactory, entry_id: str) -> None:
    """Set the entry of a change that has continued in Prefect to DONE. Raises `DatabaseUnavailable`."""
    async with transaction(sessions) as session:
        await session.execute(update(_ENTRIES).where(_ENTRIES.c.id == entry_id).values(outcome=DONE))


async def record_entries(session: AsyncSession, entries: Sequence[dict[str, Any]]) -> None:
    """Store entries, as `entry_of` makes them, in the caller's transaction."""
    if entries:
        await session.execute(insert(_ENTRIES), entries)


async def forget(session: AsyncSession, entry_id: str) -> None:
    """Delete the entry of a change that the caller's transaction takes back."""
    await session.execute(delete(_ENTRIES).where(_ENTRIES.c.id == entry_id))


def entry_of(change: Change, outcome: str = DONE, entry_id: str | None = None) -> dict[str, Any]:
    """The columns of an entry of a change that the present actor makes now."""
    actor = _acting.get().actor
    return {
        "id": entry_id or new_id(),
        "at": utc_now(),
        "actor": shortened(storable(actor.name), LONGEST_ACTOR),
        "actor_kind": actor.kind.value,
        "request_id": actor.request_id,
        "address": actor.address,
        "outcome": outcome,
        **change.values(),
    }


@asynccontextmanager
async def changing(
    action: str,
    resource_type: str,
    resource_id: object,
    resource_name: str | None = None,
    *,
    before: State = None,
    operation_id: str | None = None,
) -> AsyncIterator[Change]:
    """Record a change that the block makes in Prefect, or outside of both.

    Nothing remains of a change that the block refuses with a 4xx. With an `operation_id`, all attempts at one operation
    share one entry. Raises `DatabaseUnavailable` before the block if the change cannot be recorded.
    """
    change = Change(action, resource_type, str(resource_id), resource_name, before)
    acting = _acting.get()
    if acting.within or acting.trail is None:
        yield change
        return
    entry_id = operation_id or new_id()
    is_first = await acting.trail.begin(entry_of(change, STARTED, entry_id))
    try:
        yield change
    except SpineError as refusal:
        if refusal.status_code < 500 and is_first:
            await acting.trail.forget(entry_id)
        raise
    _log(change)
    await acting.trail.complete(entry_id, change)


def _log(change: Change) -> None:
    add_line(change.action, change.resource_type, change.resource_id, change.resource_name)


def _name(name: str | None) -> str | None:
    return None if name is None else shortened(storable(name), LONGEST_RESOURCE)
