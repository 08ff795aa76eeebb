"""The items of one fetch: a process of its own downloads each into a staging file and parses it.

The process has a memory limit, and is killed when it does not end at the deadline. It does not use the database. What
it has downloaded is published to the cache by the process of the fetch, after that has acquired the lease on it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spine.cache.entries import NewEntry
from spine.cache.staging_files import StagedContent, StagingFile
from spine.cache.store import BlobStore
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.own_services import Endpoint, protected, protected_now
from spine.schemas import ErrorCategory
from spine.sources.fetching.content import Format
from spine.sources.isolation.processes import TaskProcess
from spine.sources.isolation.task import Channel
from spine.sources.parsers import NO_ROWS, Parsed, check_joins
from spine.sources.readers.base import Item, Reader, Unchanged, Validators

# Over all files of a source.
MOST_EXAMPLES = 20
# Stored with the validators of an entry: what its columns are, so that unchanged files need not be read again.
_COLUMNS = "columns"
OpenReader = Callable[[Limits], Reader]


@dataclass(frozen=True)
class Download:
    """An item that was downloaded into a staging file, and is not in the cache yet."""

    entry: NewEntry
    file: StagingFile
    bad_row_examples: tuple[dict[str, object], ...]


@dataclass(frozen=True)
class ReadTask:
    """Reads a source in a process of its own: for each path of a staging file that it receives, the next item.

    It replies with the entry and the examples of invalid rows of a download, with the key and the validators of an
    unchanged item, or with None after the last item.
    """

    open_reader: OpenReader
    format: Format
    validators: Mapping[str, Validators]
    limits: Limits
    force: bool
    # What is known of the columns of each content in the cache, by key.
    columns: Mapping[str, str | None]
    # Whether the source is a pattern: an empty file among others has no rows.
    is_list: bool
    # The services that no source may reach; the process that forks this one does not know them.
    closed: tuple[Endpoint, ...]

    def __call__(self, channel: Channel) -> None:
        """Read until there are no more requests. Raises `FetchFailure`."""
        with protected(self.closed):
            self._read(channel)

    def _read(self, channel: Channel) -> None:
        reader = self.open_reader(self.limits)
        try:
            most_examples, only_empty, columns = MOST_EXAMPLES, self.is_list, dict[str, str | None]()
            items = reader.items(self.validators, self.force)
            while True:
                path = Path(channel.receive())
                item = next(items, None)
                if item is None:
                    if only_empty:
                        raise FetchFailure(ErrorCategory.SOURCE, "All files that match are empty.")
                    check_joins(columns, self.format.config.columns or ())
                    # A process that has replied may be killed at any moment.
                    reader.close()
                    channel.send(None)
                elif isinstance(item, Unchanged):
                    only_empty = False
                    columns[item.key] = self.columns.get(item.key)
                    channel.send({"unchanged": item.key, "validators": item.validators.to_json()})
                else:
                    entry, parsed = self._download(item, path)
                    only_empty = only_empty and parsed == NO_ROWS
                    columns[item.key] = entry.validators[_COLUMNS]
                    examples = _bad_row_examples(item, parsed)[:most_examples]
                    most_examples -= len(examples)
                    channel.send({"entry": asdict(entry), "examples": examples})
        finally:
            reader.close()

    def _download(self, item: Item, path: Path) -> tuple[NewEntry, Parsed | None]:
        file = StagingFile.of_another_process(path)
        try:
            for chunk in item.chunks:
                file.write(chunk)
            staged = file.finish()
        finally:
            file.close()
        parsed = self.format.parse(path, item, self.limits, may_be_empty=self.is_list)
        entry = NewEntry(
            key=item.key,
            name=item.name,
            content_hash=staged.content_hash,
            size_bytes=staged.size_bytes,
            content_type=item.content_type,
            encoding=item.encoding,
            validators={**item.validators.to_json(), _COLUMNS: parsed.extremes if parsed else None},
            rows=parsed.rows if parsed else None,
            bad_rows=parsed.bad_rows if parsed else 0,
        )
        return entry, parsed


def _bad_row_examples(item: Item, parsed: Parsed | None) -> list[dict[str, object]]:
    if parsed is None:
        return []
    return [{"file": item.name, "line": row.line, "reason": row.reason} for row in parsed.examples]


class Reading:
    """One source being read; always call `close` at the end. Its methods block."""

    def __init__(
        self,
        open_reader: OpenReader,
        store: BlobStore,
        format_: Format,
        known: Mapping[str, NewEntry],
        limits: Limits,
        *,
        memory_bytes: int,
        modules: tuple[str, ...] = (),
        force: bool = False,
        is_list: bool = False,
    ) -> None:
        self.limits = limits
        self._store = store
        self._known = known
        self._memory_bytes = memory_bytes
        # The process imports them once for all sources of this process.
        self._modules = (__name__, *modules)
        validators = {key: Validators.from_json(entry.validators) for key, entry in known.items()}
        columns = {key: entry.validators.get(_COLUMNS) for key, entry in known.items()}
        self._task = ReadTask(open_reader, format_, validators, limits, force, columns, is_list, protected_now())
        self.process: TaskProcess | None = None
        self._file: StagingFile | None = None

    def items(self) -> Iterator[Download | NewEntry]:
        """Every item of the source in its order: a download, or the known entry when it is unchanged.

        The caller publishes or discards the file of a download. Raises `FetchFailure`.
        """
        process = self.process = TaskProcess(self._task, self.limits, self._memory_bytes, self._modules)
        while True:
            file = self._file = self._file or self._store.stage()
            reply = process.request(str(file.path))
            if reply is None:
                return
            if "unchanged" in reply:
                known = self._known[reply["unchanged"]]
                validators = Validators.from_json(reply["validators"]).to_json()
                yield known.with_validators({**validators, _COLUMNS: known.validators.get(_COLUMNS)})
                continue
            self._file = None
            yield _completed(file, reply)

    def close(self) -> None:
        """End the process, and delete the staging file that it was writing; safe to repeat."""
        if self.process is not None:
            self.process.close()
        if self._file is not None:
            self._file.discard()
            self._file = None


def _completed(file: StagingFile, reply: Mapping[str, Any]) -> Download:
    entry = NewEntry(**reply["entry"])
    file.written_elsewhere(StagedContent(entry.content_hash, entry.size_bytes))
    return Download(entry, file, tuple(reply["examples"]))
