"""The audit trail as a file: a JSON object on each line, or CSV."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from spine.administration.audit_queries import AuditQuery, every_entry
from spine.administration.formats import ExportFormat
from spine.administration.schemas import AuditEntry
from spine.database import SessionFactory

# A spreadsheet would take a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def export_audit(sessions: SessionFactory, query: AuditQuery, form: ExportFormat) -> AsyncIterator[str]:
    """The lines of the file, newest entry first; CSV has a line with the names of the columns.

    Raises `DatabaseUnavailable`.
    """
    if form is ExportFormat.CSV:
        yield _csv_line(list(AuditEntry.model_fields))
    async for entry in every_entry(sessions, query):
        if form is ExportFormat.CSV:
            yield _csv_line([_cell(value) for value in entry.model_dump(mode="json").values()])
        else:
            yield entry.model_dump_json() + "\n"


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text
