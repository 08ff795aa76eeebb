"""Whether runs were executed side by side."""

from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise


def any_overlap(spans: Iterable[tuple[datetime | None, datetime | None]]) -> bool:
    """Whether two of these spans from a begin to an end overlap; one without either is left out."""
    known = sorted((began, ended) for began, ended in spans if began and ended)
    return any(later[0] < earlier[1] for earlier, later in pairwise(known))
