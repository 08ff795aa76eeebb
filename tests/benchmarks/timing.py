"""How the benchmarks measure: ours and what it is compared with, in turns, in the same pass."""

import time
from collections.abc import Awaitable, Callable

Action = Callable[[], Awaitable[object]]
_WARMING_UP = 3


async def alternate(ours: Action, direct: Action, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both, taken in turns so that a busy moment hits both."""
    spent: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + _WARMING_UP):
        for times, action in zip(spent, (ours, direct), strict=True):
            began = time.perf_counter()
            await action()
            if round_number >= _WARMING_UP:
                times.append((time.perf_counter() - began) * 1000)
    return spent
