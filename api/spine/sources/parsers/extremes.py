"""The extremes of the columns of a file: enough to find out, without the file, whether others can be joined to it."""

import base64
import zlib
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.arrow_tables import TableColumns
from spine.sources.parsers.arrow_types import without_dictionaries
from spine.sources.parsers.parquet_files import DECLARED
from spine.sources.parsers.parse_errors import parse_failures

# A file with more columns than this describes is joined when it is read.
_MOST_BYTES = 64 * 1024


class Extremes:
    """The types of the columns of the batches of a file, and the smallest and the largest value where it matters.

    It matters where a wider type does not have all values of the type: a double those of an integer, nanoseconds those
    of seconds. Nothing is kept of batches whose types were not declared.
    """

    def __init__(self) -> None:
        self._found: pa.RecordBatch | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the extremes of a batch into account."""
        if batch.schema.metadata != DECLARED:
            return
        parts = [batch] if self._found is None else [self._found, batch]
        types = [without_dictionaries(field.type) for field in batch.schema]
        arrays = [_extremes([part.column(at) for part in parts], type_) for at, type_ in enumerate(types)]
        schema = pa.schema(list(zip(batch.schema.names, types, strict=True)), DECLARED)
        self._found = pa.RecordBatch.from_arrays(arrays, schema=schema)

    def described(self) -> str | None:
        """The extremes as text; None without any, or if they are too large to be kept."""
        if self._found is None:
            return None
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._found.schema) as writer:
            writer.write_batch(self._found)
        text = base64.b64encode(zlib.compress(sink.getvalue().to_pybytes())).decode()
        return text if len(text) <= _MOST_BYTES else None


def _extremes(parts: Sequence[pa.Array], type_: pa.DataType) -> pa.Array:
    if not _matters(type_):
        return pa.nulls(2, type_)
    found = [pc.min_max(part.view(pa.int64()) if _is_time(type_) else part) for part in parts]
    values = [one[end].as_py() for one in found for end in ("min", "max") if one[end].is_valid]
    ends = [min(values), max(values)] if values else [None, None]
    return pa.array(ends, pa.int64()).view(type_) if _is_time(type_) else pa.array(ends, type_)


def _matters(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_)) or _is_time(type_)


def _is_time(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_) or pa.types.is_duration(type_))


def check_joins(described: Mapping[str, str | None], configured: Collection[str]) -> None:
    """Check that the files of these names, with what `Extremes` describes of them, make one table.

    The types of `configured` columns are not those of the files. Files without a description are left out. Raises
    `FetchFailure` of category PARSE, which names the column.
    """
    found = {name: _batch_of(text) for name, text in described.items() if text is not None}
    batches = {name: batch for name, batch in found.items() if batch is not None}
    if len(batches) < 2:
        return
    names = dict.fromkeys(name for batch in batches.values() for name in batch.schema.names if name not in configured)
    with parse_failures(next(reversed(batches))):
        for _ in TableColumns(list(batches.values()), names, {}, inferred=False).batches():
            pass


def _batch_of(text: str) -> pa.RecordBatch | None:
    try:
        with pa.ipc.open_stream(zlib.decompress(base64.b64decode(text))) as stream:
            return stream.read_next_batch()
    except (pa.ArrowException, ValueError, zlib.error):
        return None
