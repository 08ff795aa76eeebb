"""Why a file does not parse."""

from collections.abc import Iterator
from contextlib import contextmanager

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.isolation.memory import is_memory_error
from spine.text import shortened

LONGEST_VALUE = 40


class ParseError(Exception):
    """The file does not parse; the message is a clause without the file's name and without a full stop."""


@contextmanager
def parse_failures(name: str) -> Iterator[None]:
    """Turn `ParseError` and lack of memory into a `FetchFailure` of category PARSE that names the file."""
    try:
        yield
    except (ParseError, MemoryError) as broken:
        reason = str(broken)
        if is_memory_error(broken):
            reason = "it needs more memory than SPINE_READ_MEMORY_BYTES allows"
        shown = excerpt(name.rpartition("/")[2], 80)
        raise FetchFailure(ErrorCategory.PARSE, f"{shown}: {reason}.") from None


def excerpt(value: str, longest: int = LONGEST_VALUE) -> str:
    """The value as a message may quote it: shortened, with unprintable characters replaced."""
    return "".join(char if char.isprintable() else "\ufffd" for char in shortened(value, longest))


def plural(number: int, noun: str) -> str:
    """The number with its noun: "1 field", "5 fields"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
