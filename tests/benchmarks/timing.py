"""How the benchmarks measure: ours and what it is compared with, in turns, in the same run."""

import time
from collections.abc import Awaitable, Callable
from statistics import median

from tests.benchmarks.table import line

ROUNDS = 40

Action = Callable[[], Awaitable[object]]


async def alternate(ours: Action, direct: Action, rounds: int = ROUNDS) -> tuple[float, float]:
    """Median milliseconds of both, taken in turns so that a busy moment hits both."""
    spent: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 3):
        for times, action in zip(spent, (ours, direct), strict=True):
            began = time.perf_counter()
            await action()
            if round_number >= 3:
                times.append((time.perf_counter() - began) * 1000)
    return median(spent[0]), median(spent[1])


def row(what: str, ours: float, compared: str, direct: float, unit: str, aim: str) -> None:
    """One line of the table, with the ratio of the two figures."""
    line(what, f"{ours:.1f} {unit}", compared, f"{direct:.1f} {unit}", f"{ours / direct:.2f}", aim)
