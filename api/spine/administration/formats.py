"""The formats of exports."""

from enum import StrEnum


class ExportFormat(StrEnum):
    """What a file has on each line: a JSON object, or the cells of a row."""

    NDJSON = "ndjson"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        """The media type of such a file."""
        return {"ndjson": "application/x-ndjson", "csv": "text/csv"}[self.value]
