"""The rows of one file, counted good and bad."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from spine.sources.parsers.config import LONGEST_NAME, ParserConfig
from spine.sources.parsers.parse_errors import BrokenFile, counted, short

MOST_EXAMPLES = 20
MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why.

    `line` is the line of the decompressed file at which it begins, from 1; in Parquet and JSON, the record's number.
    """

    line: int
    reason: str


@dataclass(frozen=True)
class Parsed:
    """What a file holds: `rows` good rows and `bad_rows` that were left out, of which `examples` are the first."""

    rows: int
    bad_rows: int
    examples: tuple[BadRow, ...]
    columns: tuple[str, ...]


@dataclass
class Tally:
    """Counts rows as they are read; names of columns are kept in the order in which they were met."""

    config: ParserConfig
    rows: int = 0
    bad_rows: int = 0
    examples: list[BadRow] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)

    def bad(self, line: int, reason: str) -> None:
        """Count a row that is left out."""
        self.bad_rows += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(BadRow(line, reason))

    def meet(self, names: Iterable[str]) -> None:
        """Take in names of columns. Raises `BrokenFile` for more or longer ones than a table can sensibly have."""
        new = [name for name in names if name not in self.columns]
        check_lengths(new)
        # JSON can spell halves of characters, which are no text.
        if any(0xD800 <= ord(char) <= 0xDFFF for name in new for char in name):
            raise BrokenFile("the name of a column is no text")
        self.columns.update(dict.fromkeys(new))
        if len(self.columns) > MOST_COLUMNS:
            raise BrokenFile(f"it has more than {MOST_COLUMNS:,} columns")

    def check_columns(self) -> None:
        """Raise `BrokenFile` when required columns are missing."""
        missing = [name for name in self.config.required_columns or () if name not in self.columns]
        if missing:
            listed = ", ".join(f"'{short(name)}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise BrokenFile(
                f"the required column {listed} is missing"
                if len(missing) == 1
                else f"the required columns {listed} are missing"
            )

    def parsed(self) -> Parsed:
        """The result. Raises `BrokenFile` when too many rows are bad."""
        most = self.config.max_bad_rows
        if self.bad_rows and (self.rows == 0 or (most is not None and self.bad_rows > most)):
            first = min(self.examples, key=lambda row: row.line)
            how_many = (
                "every row is bad"
                if self.rows == 0
                else (f"{counted(self.bad_rows, 'bad row')}, more than the {most:,} that max_bad_rows allows")
            )
            raise BrokenFile(f"{how_many}; the first, at {first.line:,}: {first.reason}")
        return Parsed(self.rows, self.bad_rows, tuple(self.examples), tuple(self.columns))


def check_lengths(names: Iterable[str]) -> None:
    """Raise `BrokenFile` for a name that is longer than that of a column may be: all names are held at once."""
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise BrokenFile(f"the name '{short(longest)}' is longer than {LONGEST_NAME:,} characters")
