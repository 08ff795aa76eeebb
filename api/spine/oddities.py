"""What one record holds that stops its reading: it is set aside, named once in the log, and shown as degraded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

log = structlog.get_logger("spine.oddities")

# Kept in memory, for this long after a record was last met.
KEPT = timedelta(hours=1)
MOST_KEPT = 1_000
MOST_SHOWN = 5
UNKNOWN_VALUE = "it has a value that Spine does not know"

Row = TypeVar("Row")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Oddity:
    """One record that could not be read as the others."""

    kind: str
    id: str
    reason: str
    since: datetime
    seen_at: datetime


class Oddities:
    """The odd records that this process has met."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Oddity] = {}

    def found(self, kind: str, record_id: object, reason: str) -> None:
        """Note an odd record; the log has one line for each, however often it is met."""
        now, key = datetime.now(UTC), (kind, str(record_id))
        before = self._found.pop(key, None)
        if before is None:
            log.warning("record_set_aside", kind=kind, id=key[1], reason=reason)
        self._found[key] = Oddity(kind, key[1], reason, before.since if before else now, now)
        if len(self._found) > MOST_KEPT:
            # The one that was met longest ago.
            del self._found[next(iter(self._found))]

    def knows(self, kind: str, record_id: object) -> bool:
        """Whether a record is known as odd."""
        return (kind, str(record_id)) in self._found

    def recent(self) -> list[Oddity]:
        """The odd records met within the last hour, the longest known first."""
        oldest = datetime.now(UTC) - KEPT
        self._found = {key: one for key, one in self._found.items() if one.seen_at >= oldest}
        return sorted(self._found.values(), key=lambda one: one.since)

    def forget(self) -> None:
        """Forget all odd records; those that are still there are met again."""
        self._found.clear()

    def summary(self) -> str:
        """The odd records as one line."""
        recent = self.recent()
        named = [f"{one.kind} {one.id}: {one.reason}" for one in recent[:MOST_SHOWN]]
        more = [f"and {len(recent) - MOST_SHOWN} more"] if len(recent) > MOST_SHOWN else []
        return "; ".join(named + more) or "every record could be read"


ODDITIES = Oddities()


def make_each(
    kind: str, rows: Iterable[Row], make: Callable[[Row], Made], id_of: Callable[[Row], object]
) -> list[Made]:
    """`make` of each row, without the rows for which it fails, which are set aside."""
    made = []
    for row in rows:
        try:
            made.append(make(row))
        except (ValueError, TypeError, KeyError, AttributeError, LookupError, RecursionError) as error:
            # The text of the error can hold the value, which can be a secret.
            ODDITIES.found(kind, id_of(row), f"{UNKNOWN_VALUE} ({type(error).__name__})")
    return made
