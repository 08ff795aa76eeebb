"""What a check has found, and how it is shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["up", "degraded", "down"]

_MARKS: dict[State, str] = {"up": "✓", "degraded": "!", "down": "✗"}
_WORST: tuple[State, ...] = ("down", "degraded", "up")


@dataclass(frozen=True)
class Finding:
    """The state of one part, a sentence about it, and what to do unless it is up."""

    name: str
    state: State
    detail: str
    advice: str | None = None


def up(name: str, detail: str) -> Finding:
    """A part that needs nothing."""
    return Finding(name, "up", detail)


def degraded(name: str, detail: str, advice: str) -> Finding:
    """A part that works and needs attention."""
    return Finding(name, "degraded", detail, advice)


def down(name: str, detail: str, advice: str) -> Finding:
    """A part that does not work."""
    return Finding(name, "down", detail, advice)


def worst(findings: Sequence[Finding]) -> State:
    """The state of the whole."""
    return next(state for state in _WORST if state == "up" or any(one.state == state for one in findings))


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """The findings for a terminal."""
    lines = []
    for one in findings:
        lines.append(f"{_MARKS[one.state]} {one.name:<14} {one.detail}")
        if one.advice and one.state != "up":
            lines.append(f"  {'':<14} → {one.advice}")
    return lines


def json_of(findings: Sequence[Finding]) -> str:
    """`{"status": ..., "checks": [{"name", "state", "detail", "advice"}]}`."""
    return json.dumps({"status": worst(findings), "checks": [asdict(one) for one in findings]}, indent=2)
