"""What all readers share: the items they yield, validators of known content, and common failures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory

# The size of every chunk but the last: large enough to be fast, small enough for many readers at once.
CHUNK = 2 * 1024 * 1024
# A pattern that matches more files is usually a mistake.
MOST_FILES = 10_000


@dataclass(frozen=True)
class Validators:
    """What shows whether content has changed, as far as its source says; `last_modified` in UTC, `size` in bytes.

    `etag` is kept as the source sends it, including quotes and `W/`; for files and SFTP it is made of size and mtime.
    """

    etag: str | None = None
    last_modified: datetime | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The form in which it is stored."""
        moment = self.last_modified.isoformat() if self.last_modified else None
        return {"etag": self.etag, "last_modified": moment, "size": self.size}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> "Validators":
        """The inverse of `to_json`; without values for None."""
        known = stored or {}
        moment = known.get("last_modified")
        last_modified = datetime.fromisoformat(moment).astimezone(UTC) if moment else None
        return cls(known.get("etag"), last_modified, known.get("size"))


@dataclass(frozen=True)
class Item:
    """One content to read: a file, an object or a response body.

    `key` identifies it within its source and contains no secret. `name` is the file name from which the format is
    derived. `encoding` and `declared_type` are the charset and the media type that a server declares. `chunks` can be
    read once, before the next item is requested; the content is complete only if `chunks` ends without a
    `FetchFailure`.
    """

    key: str
    name: str
    validators: Validators
    content_type: str | None
    encoding: str | None
    chunks: Iterator[bytes]
    declared_type: str | None = None


@dataclass(frozen=True)
class Unchanged:
    """Content that has not changed since it was last fetched; none of it was read."""

    key: str
    validators: Validators


class Reader(Protocol):
    """Reads one source once."""

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """All items of the source in a stable order; `known` is by key, and ignored with `force`.

        Raises `FetchFailure`, also while the chunks of an item are read.
        """

    def close(self) -> None:
        """Close connections and files; safe to repeat."""


def limited(parts: Iterator[bytes], limits: Limits) -> Iterator[bytes]:
    """The same parts, each checked against the limits before it is yielded."""
    for part in parts:
        limits.check_time()
        limits.take(len(part))
        yield part


def no_match(pattern: str) -> FetchFailure:
    """No file matches the pattern."""
    return FetchFailure(ErrorCategory.SOURCE, f"No file matches {pattern}.")


def too_many_matches(pattern: str) -> FetchFailure:
    """More than `MOST_FILES` files match the pattern."""
    sentence = f"More than {MOST_FILES:,} files match {pattern}; use a narrower pattern."
    return FetchFailure(ErrorCategory.CONFIG, sentence)


def changed_while_read(key: str) -> FetchFailure:
    """What was read may mix the old content with the new."""
    return FetchFailure(ErrorCategory.SOURCE, f"{key} was changed while it was read.", transient=True)


def not_found(key: str, *, listed: bool = False) -> FetchFailure:
    """No content has this key. It is transient if a listing had just shown it: a retry lists again."""
    return FetchFailure(ErrorCategory.SOURCE, f"{key} was not found.", transient=listed)


def incomplete(key: str) -> FetchFailure:
    """The connection ended before the content did."""
    sentence = f"The connection ended before all of {key} was received."
    return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
