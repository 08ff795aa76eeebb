"""Which number a call of a child flow gets in a later attempt, without a Prefect server."""

from datetime import UTC, datetime, timedelta

import pytest
from spine_worker.forking.child_matching import AmbiguousChild, _are_known, _Call, _Series

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def series(*calls: tuple[str, bool], side_by_side: bool = True) -> _Series:
    """Earlier calls, each with its parameters and whether it completed."""
    apart = timedelta(seconds=1 if side_by_side else 100)
    return _Series(
        [
            _Call(number, parameters, completed, NOON + number * apart, NOON + number * apart + timedelta(seconds=50))
            for number, (parameters, completed) in enumerate(calls)
        ]
    )


def numbers(of: _Series, *calls: str) -> list[int]:
    return [of.take("child", parameters, is_known=True) for parameters in calls]


def test_calls_of_a_first_attempt_are_counted() -> None:
    assert numbers(series(), "a", "b", "a") == [0, 1, 2]


def test_a_call_gets_the_number_of_the_call_with_its_parameters_in_any_order() -> None:
    earlier = ("c", False), ("a", True), ("b", True)
    assert numbers(series(*earlier), "a", "b", "c") == [1, 2, 0]
    assert numbers(series(*earlier), "b", "c", "a") == [2, 0, 1]


def test_equal_calls_are_matched_in_order_and_each_once() -> None:
    assert numbers(series(("a", True), ("a", False)), "a", "a", "a") == [0, 1, 2]


def test_a_call_with_new_parameters_takes_the_place_of_one_that_failed_and_of_none_that_completed() -> None:
    assert numbers(series(("a", True), ("bad", False)), "a", "mended") == [0, 1]
    assert numbers(series(("a", True), ("b", True)), "a", "other") == [0, 2]


def test_parameters_that_prefect_does_not_store_are_matched_in_sequence_and_not_side_by_side() -> None:
    calls = ("<Frame>", True), ("<Frame>", True)
    in_sequence = series(*calls, side_by_side=False)
    assert [in_sequence.take("child", "<Frame>", is_known=False) for _ in calls] == [0, 1]
    with pytest.raises(AmbiguousChild, match="side by side"):
        series(*calls).take("child", "<Frame>", is_known=False)


def test_only_a_parameter_that_prefect_replaces_by_its_type_is_unknown() -> None:
    thing = object()
    assert _are_known({"x": 1, "y": "<object>"}, {"x": 1, "y": "<object>"})
    assert not _are_known({"x": 1, "y": thing}, {"x": 1, "y": "<object>"})
