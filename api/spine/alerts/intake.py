"""Takes in the alerts that callers raise: those that arrive together are stored in one transaction.

A commit costs more than the statements of an alert. Each request is answered after the commit of its own alert.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import AlertEvent, StoredAlert, put_alerts, raise_alert
from spine.audit.log_lines import add_line
from spine.audit.trail import Change, entry_of, record_entries
from spine.auth.domains import Domains
from spine.database import SessionFactory, transaction
from spine.errors import SpineError
from spine.grouped import Grouped
from spine.schemas import ActionResponse

MOST_AT_ONCE = 64

# Beside the severity, what the audit trail has of an alert.
_RECORDED = ("source", "domain", "run_id", "dedup_key")


@dataclass(frozen=True)
class _Raised:
    """An alert that a caller raises, and the entry of the audit trail that says so."""

    event: AlertEvent
    entry: dict[str, Any]


class Intake:
    """Stores the alerts of one process's requests."""

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._stored = Grouped[_Raised, StoredAlert](self._store, MOST_AT_ONCE)

    async def request_alert(self, domains: Domains, event: AlertEvent) -> ActionResponse:
        """Store an alert that a caller raises. Raises `Forbidden` for a domain that the caller may not use.

        A limited caller has deduplication keys of its own in each domain, so that it cannot throttle alerts of others.
        """
        domains.require(event.domain, "the alert")
        if domains.is_limited and event.dedup_key is not None:
            own_key = sha256(json.dumps([event.domain, event.dedup_key]).encode()).hexdigest()
            event = replace(event, dedup_key=f"limited:{own_key}")
        after = {"severity": event.severity.value, **{name: getattr(event, name) for name in _RECORDED}}
        change = Change("raised", "alert", event.cause, event.title, after=after)
        stored = await self._stored.do(_Raised(event, entry_of(change)))
        add_line("raised", "alert", stored.id, event.title)
        return ActionResponse(id=stored.id, status="created", message=stored.summary)

    async def _store(self, raised: Sequence[_Raised]) -> Sequence[StoredAlert | Exception]:
        """Store alerts together, or each in a transaction of its own if one of them cannot be stored."""
        try:
            async with transaction(self._sessions) as session:
                return await _put(session, raised)
        except SpineError:
            # The database is out of reach, for each of them.
            raise
        except Exception:
            return [await self._store_alone(one) for one in raised]

    async def _store_alone(self, raised: _Raised) -> StoredAlert | Exception:
        try:
            async with transaction(self._sessions) as session:
                return (await _put(session, [raised]))[0]
        except IntegrityError:
            # Another process has stored the same cause, and recorded it.
            return await raise_alert(self._sessions, raised.event)
        except Exception as error:
            return error


async def _put(session: AsyncSession, raised: Sequence[_Raised]) -> list[StoredAlert]:
    """Store alerts and the entries of those that are new, of which one cause has one."""
    stored = await put_alerts(session, [one.event for one in raised])
    entries = {
        alert.id: {**one.entry, "resource_id": alert.id}
        for one, alert in zip(raised, stored, strict=True)
        if alert.is_new
    }
    await record_entries(session, list(entries.values()))
    return stored
