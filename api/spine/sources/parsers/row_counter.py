"""The valid and invalid rows of one file, counted."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from spine.sources.parsers.config import LONGEST_NAME, ParserConfig
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural

MOST_EXAMPLES = 20
MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class BadRow:
    """An invalid row, which is left out, and the reason.

    `line` is the line of the decompressed file where the row begins, from 1; for Parquet and JSON, the record number.
    """

    line: int
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The result for a file: `rows` valid rows, and `bad_rows` invalid ones, of which `examples` are the first.

    `extremes` describes the columns of a file that declares their types, for `check_joins`.
    """

    rows: int
    bad_rows: int
    examples: tuple[BadRow, ...]
    columns: tuple[str, ...]
    extremes: str | None = None


@dataclass
class RowCounter:
    """Counts rows while they are read; column names keep the order of their first occurrence."""

    config: ParserConfig
    rows: int = 0
    bad_rows: int = 0
    examples: list[BadRow] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)

    def add_bad_row(self, line: int, reason: str) -> None:
        """Count an invalid row."""
        self.bad_rows += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(BadRow(line, reason))

    def add_columns(self, names: Iterable[str]) -> None:
        """Add column names. Raises `ParseError` if there are too many, or one is too long or not valid text."""
        new = [name for name in names if name not in self.columns]
        check_lengths(new)
        # JSON can contain lone surrogates, which are not valid text.
        if any(0xD800 <= ord(char) <= 0xDFFF for name in new for char in name):
            raise ParseError("the name of a column is not valid text")
        self.columns.update(dict.fromkeys(new))
        if len(self.columns) > MOST_COLUMNS:
            raise ParseError(f"it has more than {MOST_COLUMNS:,} columns")

    def check_columns(self) -> None:
        """Raise `ParseError` if required columns are missing."""
        missing = [name for name in self.config.required_columns or () if name not in self.columns]
        if missing:
            listed = ", ".join(f"'{excerpt(name)}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ParseError(
                f"the required column {listed} is missing"
                if len(missing) == 1
                else f"the required columns {listed} are missing"
            )

    def result(self) -> Parsed:
        """The result. Raises `ParseError` if all rows, or more than the configuration allows, are invalid."""
        if (too_many := self._too_many()) is not None:
            first = min(self.examples, key=lambda row: row.line)
            raise ParseError(f"{too_many}; the first, at {first.line:,}: {first.reason}")
        return Parsed(self.rows, self.bad_rows, tuple(self.examples), tuple(self.columns))

    def _too_many(self) -> str | None:
        """Why there are too many invalid rows; None if there are not."""
        if not self.bad_rows:
            return None
        if self.rows == 0:
            return "all rows are invalid"
        most, fraction = self.config.max_bad_rows, self.config.max_bad_fraction
        if most is not None and self.bad_rows > most:
            return f"{plural(self.bad_rows, 'invalid row')}, more than the {most:,} that max_bad_rows allows"
        rows = self.rows + self.bad_rows
        if self.bad_rows > Decimal(str(fraction)) * rows:
            return f"{self.bad_rows:,} of {rows:,} rows are invalid, more than max_bad_fraction allows ({fraction:g})"
        return None


def check_lengths(names: Iterable[str]) -> None:
    """Raise `ParseError` for a name longer than `LONGEST_NAME`: all names are in memory at once."""
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise ParseError(f"the name '{excerpt(longest)}' is longer than {LONGEST_NAME:,} characters")
