"""Variants of a test: one, or one in some, run by default, and all the others with the slow half."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_by_default(variants: Iterable[Any], default: int = 0) -> list[Any]:
    """The parameters of a test, of which only the one at `default` runs before each commit.

    It is for variants that prove one promise again: on another database, with another file, after another reply.
    A tuple has a value for each argument of the test.
    """
    return [_parameter(variant, place == default) for place, variant in enumerate(variants)]


def one_in(count: int, variants: Iterable[Any]) -> list[Any]:
    """The parameters of a test with a long table, of which only the first of each `count` run before each commit."""
    return [_parameter(variant, place % count == 0) for place, variant in enumerate(variants)]


def _parameter(variant: Any, by_default: bool) -> Any:
    values = variant if isinstance(variant, tuple) else (variant,)
    return pytest.param(*values, marks=[] if by_default else [pytest.mark.slow])
