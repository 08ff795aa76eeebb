"""The rows of a query as one Parquet file, written while they arrive: the same rows give the same bytes."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spine.connections.drivers import driver_of
from spine.connections.drivers.base import Rows, Session, abort_after, open_session, translated_errors
from spine.connections.drivers.queries import check_query
from spine.connections.resolved_connection import ResolvedConnection
from spine.connections.usage import track_session
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.arrow_rows import schema_of, to_batch
from spine.sources.readers.base import Item, Unchanged, Validators

KEY = "query"
_PARQUET = "application/vnd.apache.parquet"
# One row group is held in memory at a time.
_ROWS_OF_A_GROUP = 50_000
_BYTES_OF_A_GROUP = 16 * 1024 * 1024
# Rows are fetched by count, starting with few because their width is not known.
_ROWS_AT_FIRST = 20
_MOST_ROWS_AT_ONCE = 5_000
_BYTES_AT_ONCE = 4 * 1024 * 1024
# How many rows determine column types that the driver does not report.
_ROWS_FOR_TYPES = 5_000


class QueryReader:
    """Reads one query, in a read-only transaction with a server-side cursor."""

    def __init__(self, target: ResolvedConnection, query: str, limits: Limits) -> None:
        self._target = target
        self._query = query
        self._limits = limits
        self._guarded = GuardedCall(target.allow_private, limits)
        self._session: Session | None = None
        self._timer: threading.Timer | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """One item, the file; a database does not report whether anything has changed."""
        yield Item(KEY, f"{self._target.name}.parquet", Validators(), _PARQUET, None, self._chunks())

    def close(self) -> None:
        """Close the connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            self._session.close()
            self._session = None
        self._guarded.close()

    def _chunks(self) -> Iterator[bytes]:
        with track_session(self._target.id):
            try:
                rows = self._run(self._begin)
                yield from self._parquet_chunks(rows)
            finally:
                self.close()

    def _begin(self) -> Rows:
        try:
            check_query(self._target.db_type, self._query)
        except ValueError as reason:
            raise FetchFailure(ErrorCategory.CONFIG, f"The query {reason}.") from None
        seconds = self._limits.wait(1e9)
        session = self._session = open_session(driver_of(self._target.db_type), self._target, seconds)
        if isfinite(self._limits.deadline):
            self._timer = abort_after(self._limits.left(), session.abort)
        return session.select(self._query)

    def _run(self, call: Any) -> Any:
        """Call within the guard, with errors of the driver translated."""
        try:
            with translated_errors(driver_of(self._target.db_type), self._target):
                return self._guarded.run(call)
        except FetchFailure as failure:
            if (refused := self._guarded.refusal(self._target.host)) is not None:
                raise refused from None
            # A connection that was aborted at the deadline can fail with any error.
            if failure.category in (ErrorCategory.NETWORK, ErrorCategory.SOURCE):
                self._limits.check_time()
            raise

    def _parquet_chunks(self, rows: Rows) -> Iterator[bytes]:
        sink = _Sink()
        fetched = self._first(rows)
        schema = schema_of(rows.columns, fetched)
        group: list[pa.RecordBatch] = []
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            while fetched:
                group.append(to_batch(fetched, schema))
                if _is_full(group):
                    writer.write_table(pa.Table.from_batches(group, schema))
                    group = []
                    yield from self._take_from(sink)
                fetched = self._fetch(rows, _next_count(fetched))
            if group:
                writer.write_table(pa.Table.from_batches(group, schema))
        yield from self._take_from(sink)

    def _first(self, rows: Rows) -> Sequence[Sequence[Any]]:
        """The first rows; more of them if they determine column types."""
        first = list(self._fetch(rows, _ROWS_AT_FIRST))
        if all(column.type is not None for column in rows.columns):
            return first
        while len(first) < _ROWS_FOR_TYPES and _average_size(first) * len(first) < _BYTES_OF_A_GROUP:
            more = self._fetch(rows, min(_next_count(first), _ROWS_FOR_TYPES - len(first)))
            if not more:
                break
            first += more
        return first

    def _fetch(self, rows: Rows, count: int) -> Sequence[Sequence[Any]]:
        self._limits.check_time()
        fetched: Sequence[Sequence[Any]] = self._run(lambda: rows.fetch(count))
        return fetched

    def _take_from(self, sink: "_Sink") -> Iterator[bytes]:
        for part in sink.take():
            self._limits.take(len(part))
            yield part


def open_query_reader(target: ResolvedConnection, query: str, limits: Limits) -> QueryReader:
    """A reader of a query; it connects when the chunks of its item are first requested."""
    return QueryReader(target, query, limits)


def _next_count(rows: Sequence[Sequence[Any]]) -> int:
    """How many rows to fetch after these; it depends only on the rows, so that the same rows give the same file."""
    fitting = int(_BYTES_AT_ONCE / max(_average_size(rows), 1))
    # At most four times as many as before, as the next rows may be wider.
    return max(1, min(fitting, 4 * len(rows), _MOST_ROWS_AT_ONCE))


def _average_size(rows: Sequence[Sequence[Any]]) -> float:
    """The approximate size of a row in bytes, from a sample of one to two hundred."""
    sample = rows[:: max(1, len(rows) // 100)]
    sizes = [len(value if isinstance(value, str | bytes) else str(value)) for row in sample for value in row]
    return sum(sizes) / max(1, len(sample))


def _is_full(group: Sequence[pa.RecordBatch]) -> bool:
    rows = sum(batch.num_rows for batch in group)
    size: int = sum(batch.nbytes for batch in group)
    return rows >= _ROWS_OF_A_GROUP or size >= _BYTES_OF_A_GROUP


class _Sink:
    """A write-only file whose content is passed on and never kept."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def take(self) -> list[bytes]:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return [b"".join(parts)] if parts else []

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
