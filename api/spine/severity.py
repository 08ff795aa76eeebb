"""The severities of alerts, in order."""

from spine.oddities import ODDITIES
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


def stored_severity(value: str, otherwise: Severity, kind: str, record_id: str) -> Severity:
    """The severity in a row of Spine's database; `otherwise` for a value that is not one, which is named."""
    try:
        return Severity(value)
    except ValueError:
        ODDITIES.found(kind, record_id, f"its severity is not one that Spine knows; it counts as {otherwise.value}")
        return otherwise
