"""What all readers have in common: what they hand out, what they know of it, and the limits they keep."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory

# What is handed out at once, but for the last part: big enough to be quick, small enough for many readers.
CHUNK = 2 * 1024 * 1024
# A pattern that matches more is a mistake more often than a source.
MOST_FILES = 10_000


@dataclass(frozen=True)
class Validators:
    """What tells whether content is still the same, as far as its source says; `last_modified` in UTC, `size` in bytes.

    `etag` is kept as the source gives it, quotes and `W/` included; files and SFTP get one of size and mtime.
    """

    etag: str | None = None
    last_modified: datetime | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        moment = self.last_modified.isoformat() if self.last_modified else None
        return {"etag": self.etag, "last_modified": moment, "size": self.size}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> "Validators":
        """As `to_json` wrote it; nothing known for None."""
        known = stored or {}
        moment = known.get("last_modified")
        last_modified = datetime.fromisoformat(moment).astimezone(UTC) if moment else None
        return cls(known.get("etag"), last_modified, known.get("size"))


@dataclass(frozen=True)
class Item:
    """One content to be read: a file, an object, an answer.

    `key` names it within its source and holds no secret. `name` is what its format is told from. `encoding` is the
    charset that the source tells. `chunks` can be read once, before the next item is asked for; only when it has ended
    without a `FetchFailure` is the content whole.
    """

    key: str
    name: str
    validators: Validators
    content_type: str | None
    encoding: str | None
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class Unchanged:
    """Content that is still what is known of it; nothing of it was read."""

    key: str
    validators: Validators


class Reader(Protocol):
    """Reads one source, once."""

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """All that the source has, in a stable order; `known` by key, and ignored with `force`.

        Raises `FetchFailure`, also while the chunks of an item are read.
        """

    def close(self) -> None:
        """Let go of connections and files; safe to repeat."""


def measured(parts: Iterator[bytes], limits: Limits) -> Iterator[bytes]:
    """The same parts, each counted before it is handed out."""
    for part in parts:
        limits.check_time()
        limits.take(len(part))
        yield part


def none_matches(pattern: str) -> FetchFailure:
    """No file has a name of this form."""
    return FetchFailure(ErrorCategory.SOURCE, f"Nothing matches {pattern}.")


def too_many_match(pattern: str) -> FetchFailure:
    """More files match than one source may have."""
    return FetchFailure(ErrorCategory.CONFIG, f"More than {MOST_FILES:,} files match {pattern}; name fewer.")


def changed_meanwhile(key: str) -> FetchFailure:
    """What was read is neither the old content nor the new one."""
    return FetchFailure(ErrorCategory.SOURCE, f"{key} was changed while it was read.", transient=True)


def not_there(key: str, *, listed: bool = False) -> FetchFailure:
    """There is nothing of this name; what was `listed` a moment ago may not be, the next time."""
    return FetchFailure(ErrorCategory.SOURCE, f"{key} is not there.", transient=listed)


def not_whole(key: str) -> FetchFailure:
    """The connection ended before the content did."""
    sentence = f"The connection ended before all of {key} had come."
    return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
