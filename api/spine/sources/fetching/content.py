"""The bytes of one fetch: each item of its source goes through a part file into the cache, and is parsed on the way.

All of this is synchronous and belongs into one thread, the reader's. Nothing here touches the database: between
`gather` and `publish` the caller writes down that the content is held.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from spine.cache.entries import NewEntry, content_hash_of
from spine.cache.failures import local_errors
from spine.cache.store import BlobStore, StagingFile
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.parsers import Parsed, ParserConfig, ParserType, parse, parser_for, to_arrow
from spine.sources.readers.base import Item, Reader, Unchanged, Validators
from spine.tables.sources import Source

# Of all files of a source together.
MOST_EXAMPLES = 20


@dataclass(frozen=True)
class ContentFile:
    """A file with one content of a source, which told its `name` and, perhaps, its `encoding`."""

    path: Path
    name: str
    encoding: str | None


@dataclass(frozen=True)
class Format:
    """How the content of a source is parsed; without a type, that is told from each file's name."""

    parser_type: str | None
    config: ParserConfig

    @classmethod
    def of(cls, source: Source) -> "Format":
        """What a source says; a file's `format` counts where it has no `parser_type`."""
        parser_type = source.parser_type or source.config.get("format")
        return cls(parser_type, ParserConfig.model_validate(source.parser_config or {}))

    def parse(self, part: StagingFile, item: Item, limits: Limits) -> Parsed | None:
        """Count the rows of a part; None for content without a known format. Raises `FetchFailure`."""
        parser = parser_for(item.name, self.parser_type)
        if parser is None:
            return None
        # What is compressed can take hours to read, however small it is.
        check = partial(limits.check_time, ErrorCategory.SOURCE)
        with local_errors():
            return parse(part.path, item.name, parser, self._config_for(item), check)

    def to_arrow(self, files: Sequence[ContentFile]) -> pa.Table:
        """The good rows of files, each parsed as its fetch has parsed it. Raises `FetchFailure`."""
        return to_arrow([(file.path, file.name, self._parser_of(file), self._config_for(file)) for file in files])

    def _parser_of(self, file: ContentFile) -> ParserType:
        parser = parser_for(file.name, self.parser_type)
        if parser is None:
            raise FetchFailure(ErrorCategory.PARSE, f"{file.name} has no format that is known; set parser_type.")
        return parser

    def _config_for(self, item: Item | ContentFile) -> ParserConfig:
        if item.encoding is None or "encoding" in self.config.model_fields_set:
            return self.config
        try:
            return ParserConfig.model_validate(self.config.model_dump(exclude_unset=True) | {"encoding": item.encoding})
        except ValidationError:
            # A server can claim an encoding that does not exist.
            return self.config


@dataclass
class Gathered:
    """What a fetch has brought: an entry for each item in the order of the source, and what was read for that."""

    entries: list[NewEntry] = field(default_factory=list)
    bytes_fetched: int = 0
    downloads: int = 0
    examples: list[dict[str, object]] = field(default_factory=list)

    @property
    def rows(self) -> int | None:
        """The rows of all entries; None when there is content of which none are counted."""
        counts = [entry.rows for entry in self.entries]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def bad_rows(self) -> int:
        """The rows that were left out."""
        return sum(entry.bad_rows for entry in self.entries)

    def content_hash(self, is_list: bool) -> str:
        """What names the content, as `content_hash_of` says."""
        return content_hash_of(self.entries, is_list=is_list)

    def validators(self, is_list: bool) -> tuple[str | None, datetime | None]:
        """ETag and time of the last change, of a source with one content."""
        if is_list:
            return None, None
        known = Validators.from_json(self.entries[0].validators)
        return known.etag, known.last_modified


@dataclass(frozen=True)
class Read:
    """An item whose bytes are in a part, not yet in the cache."""

    entry: NewEntry
    part: StagingFile
    examples: tuple[dict[str, object], ...]


def read_items(
    reader: Reader, store: BlobStore, format_: Format, known: Mapping[str, NewEntry], limits: Limits, *, force: bool
) -> Iterator[Read | NewEntry]:
    """Every item of a source in its order: read anew, or as it was known. Raises `FetchFailure`.

    Whoever takes a `Read` publishes its part or discards it before asking for the next.
    """
    validators = {key: Validators.from_json(entry.validators) for key, entry in known.items()}
    most_examples = MOST_EXAMPLES
    for item in reader.items(validators, force):
        if isinstance(item, Unchanged):
            yield known[item.key].with_validators(item.validators.to_json())
        else:
            read = _read(item, store, format_, limits, most_examples)
            most_examples -= len(read.examples)
            yield read


def _read(item: Item, store: BlobStore, format_: Format, limits: Limits, most_examples: int) -> Read:
    part = store.stage()
    try:
        for chunk in item.chunks:
            part.write(chunk)
        written = part.finish()
        parsed = format_.parse(part, item, limits)
    except BaseException:
        part.discard()
        raise
    entry = NewEntry(
        key=item.key,
        name=item.name,
        content_hash=written.content_hash,
        size_bytes=written.size_bytes,
        content_type=item.content_type,
        encoding=item.encoding,
        validators=item.validators.to_json(),
        rows=parsed.rows if parsed else None,
        bad_rows=parsed.bad_rows if parsed else 0,
    )
    return Read(entry, part, _examples(item, parsed)[:most_examples])


def _examples(item: Item, parsed: Parsed | None) -> tuple[dict[str, object], ...]:
    if parsed is None:
        return ()
    return tuple({"file": item.name, "line": row.line, "reason": row.reason} for row in parsed.examples)


# Tells people how far a fetch is.
Tell = Callable[[str], None]
