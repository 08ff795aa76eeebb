"""The severities of alerts, in order."""

from spine.schemas import CaseInsensitiveEnum


class Severity(CaseInsensitiveEnum):
    """The severity of an alert, from the least to the most severe."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        """The position in the order, from 0."""
        return list(Severity).index(self)
