"""What a benchmark finds: rows of figures beside what they are compared with, and whether they meet their aims."""

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

RATIO = "ratio"


@dataclass(frozen=True)
class Figure:
    """A number with its unit; the first one of a row needs no name."""

    value: float
    unit: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """As a table shows it."""
        return " ".join(part for part in (short(self.value), self.unit, self.name) if part)


@dataclass(frozen=True)
class Aim:
    """A limit of one figure of a row: of the first by default, of another by its name, or of the ratio."""

    limit: float
    of: str = ""
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether the value is on the right side of the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table. What is compared with Spine was measured in the same pass, in turns where possible."""

    what: str
    ours: tuple[Figure, ...]
    compared: str = ""
    theirs: tuple[Figure, ...] = ()
    aims: tuple[Aim, ...] = ()
    # The database that took part, where there is a choice.
    engine: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What makes two rows, of two passes, comparable."""
        return self.what, self.engine

    @property
    def ratio(self) -> float | None:
        """The first figure as a multiple of the other's first figure."""
        if not self.theirs or not self.theirs[0].value:
            return None
        return self.ours[0].value / self.theirs[0].value

    @property
    def is_met(self) -> bool | None:
        """Whether all aims are met; None where there is no aim."""
        return not self.missed if self.aims else None

    @property
    def missed(self) -> list[Aim]:
        """The aims that are missed; an aim of a figure that is absent is one."""
        found = ((aim, self._value(aim.of)) for aim in self.aims)
        return [aim for aim, value in found if value is None or not aim.is_met(value)]

    def aim_text(self, aim: Aim) -> str:
        """An aim as the table shows it."""
        sign = "≥" if aim.at_least else "≤"
        if aim.of == RATIO:
            return f"ratio {sign} {short(aim.limit)}"
        unit = next((figure.unit for figure in self.ours if aim.of in ("", figure.name)), "")
        return " ".join(part for part in (sign, short(aim.limit), unit, aim.of) if part)

    def _value(self, name: str) -> float | None:
        if name == RATIO:
            return self.ratio
        if not name:
            return self.ours[0].value
        return next((figure.value for figure in self.ours if figure.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The row as the history keeps it."""
        return {
            "what": self.what,
            "engine": self.engine,
            "ours": [vars(figure) for figure in self.ours],
            "compared": self.compared,
            "theirs": [vars(figure) for figure in self.theirs],
            "ratio": self.ratio,
            "aims": [vars(aim) for aim in self.aims],
            "met": self.is_met,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Row":
        """A row of the history; ratio and verdict are computed again."""
        return cls(
            kept["what"],
            tuple(Figure(**one) for one in kept["ours"]),
            kept["compared"],
            tuple(Figure(**one) for one in kept["theirs"]),
            tuple(Aim(**one) for one in kept["aims"]),
            kept["engine"],
        )


def at_most(limit: float, of: str = "") -> Aim:
    """The figure must not be above the limit."""
    return Aim(limit, of)


def at_least(limit: float, of: str = "") -> Aim:
    """The figure must not be below the limit."""
    return Aim(limit, of, at_least=True)


def middle(values: list[float], unit: str) -> tuple[Figure, ...]:
    """The median, and the 95th percentile where there are enough values to have one."""
    found = (Figure(median(values), unit),)
    return (*found, Figure(percentile(values, 95), unit, "p95")) if len(values) > 1 else found


def percentile(values: list[float], percent: int) -> float:
    """A percentile of at least two values, which is never beyond the largest."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def short(number: float) -> str:
    """A number with three digits that matter."""
    if number == round(number) or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.{1 if abs(number) >= 10 else 2 if abs(number) >= 1 else 3}f}"
