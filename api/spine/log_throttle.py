"""One line in the log when something goes out of reach, and one when it is back, whoever notices and however often."""

from collections import defaultdict

import structlog

from spine.errors import SpineError

log = structlog.get_logger("spine.log_throttle")


class Outages:
    """What the works of one part of the program, `who`, suffer from, by the class of their errors."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._suffered: dict[str, set[str]] = defaultdict(set)

    def met(self, work: str, error: Exception) -> None:
        """Say that a work failed; an error that is none of Spine's own is a defect, and logged with its traceback."""
        kind = type(error).__name__
        known = any(kind in kinds for kinds in self._suffered.values())
        self._suffered[work].add(kind)
        if known:
            return
        if isinstance(error, SpineError):
            log.warning(f"{self._who}_interrupted", work=work, kind=kind, reason=error.detail)
        else:
            log.error(f"{self._who}_failed", work=work, kind=kind, exc_info=error)

    def over(self, work: str) -> None:
        """Say that a work succeeded."""
        ended = self._suffered.pop(work, set())
        for kind in sorted(ended - set().union(*self._suffered.values())):
            log.info(f"{self._who}_resumed", work=work, kind=kind)
