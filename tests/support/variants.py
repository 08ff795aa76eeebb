"""Variants of a test: one runs by default, and all the others with the slow half."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_by_default(variants: Iterable[Any], default: int = 0) -> list[Any]:
    """The parameters of a test, of which only the one at `default` runs before each commit.

    It is for variants that prove one promise again: on another database, with another file, after another reply.
    A tuple has a value for each argument of the test.
    """
    made = []
    for place, variant in enumerate(variants):
        values = variant if isinstance(variant, tuple) else (variant,)
        made.append(pytest.param(*values, marks=[] if place == default else [pytest.mark.slow]))
    return made
