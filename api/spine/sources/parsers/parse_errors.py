"""What stands in the way of parsing, in words."""

from collections.abc import Iterator
from contextlib import contextmanager

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

LONGEST_VALUE = 40


class BrokenFile(Exception):
    """The file does not parse; the message is a clause about it, without its name and without the full stop."""


@contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Turn `BrokenFile` into a `FetchFailure` of category PARSE that names the file."""
    try:
        yield
    except BrokenFile as broken:
        shown = short(name.rpartition("/")[2], 80)
        raise FetchFailure(ErrorCategory.PARSE, f"{shown}: {broken}.") from None


def short(value: str, longest: int = LONGEST_VALUE) -> str:
    """The value, cut and without what cannot be printed, as it may stand in a sentence."""
    cut = value if len(value) <= longest else value[: longest - 3] + "..."
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in cut)


def counted(number: int, noun: str) -> str:
    """The number with its noun: "1 field", "5 fields"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
