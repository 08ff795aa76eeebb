"""Files of Arrow batches, which are read by mapping them into memory."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from spine.sources.parsers.parse_errors import ParseError


@contextmanager
def batch_file(folder: Path) -> Iterator["BatchFile"]:
    """A temporary file of batches in a folder."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield BatchFile(file)


class BatchFile:
    """A file of batches whose schemas may differ; `limit` is the most bytes that they may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self.limit = 0
        self._file = file
        self._sink = pa.PythonFile(self._file, mode="w")
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._schema: pa.Schema | None = None
        # Where each stream begins: one stream has batches of one schema.
        self._starts: list[int] = []
        self._mapped: mmap.mmap | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch. Raises `ParseError` if the file would become too large."""
        if self._writer is None or not batch.schema.equals(self._schema, check_metadata=True):
            self._end_stream()
            self._starts.append(self._file.tell())
            self._schema = batch.schema
            self._writer = pa.ipc.new_stream(self._sink, batch.schema)
        self._writer.write_batch(batch)
        if self._file.tell() > self.limit:
            raise too_large(self.limit)

    def read(self) -> list[pa.RecordBatch]:
        """All batches; their values stay in the file."""
        self._end_stream()
        self._file.flush()
        if not self._starts:
            return []
        self._mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        content = pa.py_buffer(self._mapped)
        found: list[pa.RecordBatch] = []
        for start, end in zip(self._starts, [*self._starts[1:], content.size], strict=True):
            with pa.ipc.open_stream(content.slice(start, end - start)) as stream:
                found += stream
        return found

    def released(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """These batches; what was read of the file for each of them leaves the memory of the process after it."""
        for batch in batches:
            yield batch
            if self._mapped is not None:
                self._mapped.madvise(mmap.MADV_DONTNEED)

    def _end_stream(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], limit: int) -> None:
    """Write batches as an Arrow file. Raises `ParseError` if it becomes larger than `limit` bytes."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            if sink.tell() > limit:
                raise too_large(limit)


def too_large(limit: int) -> ParseError:
    """The error for a table that takes more bytes than it may."""
    return ParseError(f"its table takes more than {limit:,} bytes; set max_expanded_bytes to allow more")
