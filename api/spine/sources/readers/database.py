"""A query's rows as one Parquet file, written while they come: the same rows give the same bytes."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spine.connections.drivers import driver_of
from spine.connections.drivers.base import Rows, Session, abort_after, connected, explained
from spine.connections.resolved_connection import ConnectionTarget
from spine.connections.usage import counted
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.readers.arrow_rows import schema_of, to_batch
from spine.sources.readers.base import Item, Unchanged, Validators

KEY = "query"
_PARQUET = "application/vnd.apache.parquet"
# A group of rows is what is in memory at once.
_ROWS_OF_A_GROUP = 50_000
_BYTES_OF_A_GROUP = 16 * 1024 * 1024
# Rows are asked for by their number, few at first: nobody knows how wide they are.
_ROWS_AT_FIRST = 20
_MOST_ROWS_AT_ONCE = 5_000
_BYTES_AT_ONCE = 4 * 1024 * 1024
# How many rows tell the types of columns where the driver does not.
_ROWS_TO_TELL = 5_000


class QueryReader:
    """Reads one query, in a read-only transaction with a server-side cursor."""

    def __init__(self, target: ConnectionTarget, query: str, limits: Limits) -> None:
        self._target = target
        self._query = query
        self._limits = limits
        self._work = GuardedCall(target.allow_private, limits)
        self._session: Session | None = None
        self._timer: threading.Timer | None = None

    def items(self, known: Mapping[str, Validators], force: bool) -> Iterator[Item | Unchanged]:
        """The file; a database does not tell beforehand whether anything has changed."""
        yield Item(KEY, f"{self._target.name}.parquet", Validators(), _PARQUET, None, self._chunks())

    def close(self) -> None:
        """End the connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            self._session.close()
            self._session = None
        self._work.close()

    def _chunks(self) -> Iterator[bytes]:
        with counted(self._target.id):
            try:
                rows = self._run(self._begin)
                yield from self._written(rows)
            finally:
                self.close()

    def _begin(self) -> Rows:
        seconds = self._limits.wait(1e9)
        session = self._session = connected(driver_of(self._target.db_type), self._target, seconds)
        if isfinite(self._limits.deadline):
            self._timer = abort_after(self._limits.left(), session.abort)
        return session.select(self._query)

    def _run(self, call: Any) -> Any:
        """Call within the guard, with the driver's errors translated."""
        try:
            with explained(driver_of(self._target.db_type), self._target):
                return self._work.run(call)
        except FetchFailure as failure:
            if (refused := self._work.refusal(self._target.host)) is not None:
                raise refused from None
            # Whatever a connection says that is ended at the deadline, that is the reason.
            if failure.category in (ErrorCategory.NETWORK, ErrorCategory.SOURCE):
                self._limits.check_time()
            raise

    def _written(self, rows: Rows) -> Iterator[bytes]:
        sink = _Sink()
        some = self._first(rows)
        schema = schema_of(rows.columns, some)
        group: list[pa.RecordBatch] = []
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            while some:
                group.append(to_batch(some, schema))
                if _is_full(group):
                    writer.write_table(pa.Table.from_batches(group, schema))
                    group = []
                    yield from self._taken(sink)
                some = self._fetch(rows, _next_count(some))
            if group:
                writer.write_table(pa.Table.from_batches(group, schema))
        yield from self._taken(sink)

    def _first(self, rows: Rows) -> Sequence[Sequence[Any]]:
        """The first rows; more of them where they are to tell the types of columns."""
        first = list(self._fetch(rows, _ROWS_AT_FIRST))
        if all(column.type is not None for column in rows.columns):
            return first
        while len(first) < _ROWS_TO_TELL and _average_size(first) * len(first) < _BYTES_OF_A_GROUP:
            more = self._fetch(rows, min(_next_count(first), _ROWS_TO_TELL - len(first)))
            if not more:
                break
            first += more
        return first

    def _fetch(self, rows: Rows, count: int) -> Sequence[Sequence[Any]]:
        self._limits.check_time()
        fetched: Sequence[Sequence[Any]] = self._run(lambda: rows.fetch(count))
        return fetched

    def _taken(self, sink: "_Sink") -> Iterator[bytes]:
        for part in sink.taken():
            self._limits.take(len(part))
            yield part


def open_query_reader(target: ConnectionTarget, query: str, limits: Limits) -> QueryReader:
    """What reads a query; nothing is connected to before its item's chunks are asked for."""
    return QueryReader(target, query, limits)


def _next_count(rows: Sequence[Sequence[Any]]) -> int:
    """How many rows to ask for after these; told by the rows alone, so that the same rows give the same file."""
    fitting = int(_BYTES_AT_ONCE / max(_average_size(rows), 1))
    # Not many more than the last time, as the next ones may be wider.
    return max(1, min(fitting, 4 * len(rows), _MOST_ROWS_AT_ONCE))


def _average_size(rows: Sequence[Sequence[Any]]) -> float:
    """About how many bytes a row has, from a hundred or two of them."""
    some = rows[:: max(1, len(rows) // 100)]
    sizes = [len(value if isinstance(value, str | bytes) else str(value)) for row in some for value in row]
    return sum(sizes) / max(1, len(some))


def _is_full(group: Sequence[pa.RecordBatch]) -> bool:
    rows = sum(batch.num_rows for batch in group)
    size: int = sum(batch.nbytes for batch in group)
    return rows >= _ROWS_OF_A_GROUP or size >= _BYTES_OF_A_GROUP


class _Sink:
    """A file that is written and handed out, never kept."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def taken(self) -> list[bytes]:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return [b"".join(parts)] if parts else []

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
