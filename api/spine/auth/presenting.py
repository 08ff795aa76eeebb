"""API keys as the command line shows them, and the times that it reads."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from spine.auth.callers import EXPIRY_HELP
from spine.errors import BadRequest
from spine.tables.api_keys import ApiKey
from spine.tables.base import utc_now

_FROM_NOW = re.compile(r"([1-9]\d{0,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLUMNS = ("id", "name", "scopes", "domains", "created", "last used", "expires", "state")


def parse_expiry(text: str | None) -> datetime | None:
    """The time at which a key expires; None for `never`. A date ends when it begins. Raises `BadRequest`."""
    if text is None or text == "never":
        return None
    if found := _FROM_NOW.fullmatch(text):
        try:
            return utc_now() + timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            raise BadRequest(f"The time {text!r} is too far in the future; use never.") from None
    return _parse(text, EXPIRY_HELP)


def parse_time(text: str | None) -> datetime | None:
    """A date or time; without an offset it is UTC. Raises `BadRequest`."""
    return None if text is None else _parse(text, "A date or time in UTC, such as 2027-01-31 or 2027-01-31T18:00.")


def _parse(text: str, forms: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"The time {text!r} cannot be read. {forms}") from None


def describe_limits(row: ApiKey) -> str:
    """The scopes, domains and expiry of a key, in one line."""
    parts = [", ".join(row.scopes)]
    if row.domains is not None:
        parts.append(f"domains {', '.join(row.domains)}")
    if row.expires_at is not None:
        parts.append(f"expires {_moment(row.expires_at)} UTC")
    return "; ".join(parts)


def key_table(rows: Sequence[ApiKey]) -> Iterator[str]:
    """A table of keys, one line each under a line with the names of the columns. Times are UTC."""
    lines = [_COLUMNS, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _line(row: ApiKey) -> tuple[str, ...]:
    return (
        row.id,
        row.name,
        ",".join(row.scopes),
        "all" if row.domains is None else ",".join(row.domains),
        _moment(row.created_at),
        _moment(row.last_used_at),
        _moment(row.expires_at),
        _state(row),
    )


def _state(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return f"revoked {_moment(row.revoked_at)}"
    return "expired" if row.expires_at is not None and row.expires_at <= utc_now() else "active"


def _moment(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "never"
