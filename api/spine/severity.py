"""How bad something is, in order."""

from spine.schemas import CaseInsensitiveEnum


class Severity(CaseInsensitiveEnum):
    """How bad something is; each is worse than the ones before it."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        """The place in the order, from 0."""
        return list(Severity).index(self)
