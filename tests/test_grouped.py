"""Work that is done for several callers at once."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest
from spine.grouped import Grouped

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Desk:
    """Doubles numbers, slowly; refuses odd ones alone, and a group with a negative number as a whole."""

    def __init__(self, most: int = 10) -> None:
        self.groups: list[list[int]] = []
        self.requests: set[str] = set()
        self.grouped = Grouped[int, int](self._double, most)

    async def _double(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(numbers))
        self.requests.add(REQUEST.get())
        await asyncio.sleep(0.01)
        if min(numbers) < 0:
            raise RuntimeError("a negative number")
        return [ValueError(f"{one} is odd") if one % 2 else one * 2 for one in numbers]


async def test_what_arrives_during_a_round_is_done_in_the_next_one() -> None:
    desk = Desk()
    first = asyncio.create_task(desk.grouped.do(2))
    await asyncio.sleep(0.005)
    assert await asyncio.gather(first, *(desk.grouped.do(number) for number in (4, 6, 8))) == [4, 8, 12, 16]
    assert desk.groups == [[2], [4, 6, 8]]


async def test_a_round_has_no_more_items_than_allowed() -> None:
    desk = Desk(most=2)
    await asyncio.gather(*(desk.grouped.do(number) for number in (0, 2, 4, 6, 8)))
    assert desk.groups == [[0, 2], [4, 6], [8]]


async def test_an_error_of_one_item_is_raised_for_that_item_only() -> None:
    desk = Desk()
    found = await asyncio.gather(*(desk.grouped.do(number) for number in (2, 3, 4)), return_exceptions=True)
    assert found[0::2] == [4, 8]
    assert isinstance(found[1], ValueError)


async def test_an_error_of_a_round_is_raised_for_all_of_it_and_the_next_round_succeeds() -> None:
    desk = Desk()
    found = await asyncio.gather(*(desk.grouped.do(number) for number in (2, -2)), return_exceptions=True)
    assert [type(one) for one in found] == [RuntimeError, RuntimeError]
    assert await desk.grouped.do(2) == 4


async def test_a_caller_that_is_cancelled_stops_no_other() -> None:
    desk = Desk()
    impatient, other = (asyncio.create_task(desk.grouped.do(number)) for number in (2, 4))
    await asyncio.sleep(0.005)
    impatient.cancel()
    assert await other == 8
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert desk.groups == [[2, 4]]


async def test_an_item_whose_caller_has_stopped_waiting_is_not_begun() -> None:
    desk = Desk(most=1)
    first, impatient, last = (asyncio.create_task(desk.grouped.do(number)) for number in (2, 4, 6))
    await asyncio.sleep(0.005)
    assert not desk.grouped.is_idle
    impatient.cancel()
    assert (await first, await last) == (4, 12)
    assert desk.groups == [[2], [6]]
    assert desk.grouped.is_idle


async def test_the_work_has_the_variables_of_no_caller() -> None:
    desk = Desk()
    REQUEST.set("mine")
    await desk.grouped.do(2)
    assert desk.requests == {"none"}
