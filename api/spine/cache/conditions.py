"""Conditional and range requests of RFC 9110 (sections 8.8, 13 and 14), for content that never changes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

_SINGLE_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# No content is longer, and Python refuses to parse much longer numbers.
_MOST_DIGITS = 18


@dataclass(frozen=True)
class ByteRange:
    """`length` bytes, starting at `first`."""

    first: int
    length: int


class RangeNotSatisfiable(Exception):
    """The range begins after the end of the content."""


def http_date(moment: datetime) -> str:
    """A time in the format of HTTP, to the second."""
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


def is_unchanged(headers: Mapping[str, str], etag: str, last_modified: datetime) -> bool:
    """Whether the client already has this content (304); `headers` has names in lower case."""
    known = headers.get("if-none-match")
    if known is not None:
        return known.strip() == "*" or etag in _ENTITY_TAG.findall(known)
    since = _moment(headers.get("if-modified-since"))
    return since is not None and last_modified.replace(microsecond=0) <= since


def requested_range(headers: Mapping[str, str], size: int, etag: str, last_modified: datetime) -> ByteRange | None:
    """The requested range; None for the whole content. Raises `RangeNotSatisfiable`.

    The whole content also answers several ranges, another unit, an invalid range, and a range whose `If-Range` names
    other content.
    """
    matched = _SINGLE_RANGE.fullmatch(headers.get("range", ""))
    if matched is None or not _if_range_matches(headers.get("if-range"), etag, last_modified):
        return None
    first, last = (_number(digits) for digits in matched.groups())
    if first is None:
        return None if last is None else _suffix(last, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise RangeNotSatisfiable
    return ByteRange(first, (size if last is None else min(last + 1, size)) - first)


def _suffix(length: int, size: int) -> ByteRange:
    if not min(length, size):
        raise RangeNotSatisfiable
    return ByteRange(size - min(length, size), min(length, size))


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS + len(digits)


def _if_range_matches(condition: str | None, etag: str, last_modified: datetime) -> bool:
    if condition is None:
        return True
    if '"' in condition:
        # A weak tag does not distinguish bytes.
        return condition.strip() == etag
    return condition.strip() == http_date(last_modified)


def _moment(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        moment = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
