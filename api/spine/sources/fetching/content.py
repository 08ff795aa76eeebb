"""The items of one fetch: each is downloaded into a staging file and parsed before it is published to the cache.

All of this is synchronous, runs in the thread of the reader, and does not use the database. The caller publishes an
item after it has acquired the lease on its content.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from spine.cache.entries import NewEntry
from spine.cache.failures import local_errors
from spine.cache.store import BlobStore, StagingFile
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.sources.parsers import Parsed, ParserConfig, ParserType, parse, parser_for, to_arrow
from spine.sources.readers.base import Item, Reader, Unchanged, Validators
from spine.tables.sources import Source

# Over all files of a source.
MOST_EXAMPLES = 20


@dataclass(frozen=True)
class ContentFile:
    """A local file with one content of a source; the source gave its `name` and perhaps its `encoding`."""

    path: Path
    name: str
    encoding: str | None


@dataclass(frozen=True)
class Format:
    """How the content of a source is parsed; without a `parser_type`, each file's name decides."""

    parser_type: str | None
    config: ParserConfig

    @classmethod
    def of_source(cls, source: Source) -> "Format":
        """The format of a source. A `format` in its configuration applies when it has no `parser_type`."""
        parser_type = source.parser_type or source.config.get("format")
        return cls(parser_type, ParserConfig.model_validate(source.parser_config or {}))

    def parse(self, file: StagingFile, item: Item, limits: Limits) -> Parsed | None:
        """Count the rows of a downloaded item; None when its format is unknown. Raises `FetchFailure`."""
        parser = parser_for(item.name, self.parser_type)
        if parser is None:
            return None
        # A small compressed file can take hours to expand.
        check = partial(limits.check_time, ErrorCategory.SOURCE)
        with local_errors():
            return parse(file.path, item.name, parser, self._config_for(item), check)

    def to_arrow(self, files: Sequence[ContentFile]) -> pa.Table:
        """The valid rows of files, parsed as their fetch parsed them. Raises `FetchFailure`."""
        return to_arrow([(file.path, file.name, self._parser_of(file), self._config_for(file)) for file in files])

    def _parser_of(self, file: ContentFile) -> ParserType:
        parser = parser_for(file.name, self.parser_type)
        if parser is None:
            raise FetchFailure(ErrorCategory.PARSE, f"The format of {file.name} is unknown; set parser_type.")
        return parser

    def _config_for(self, item: Item | ContentFile) -> ParserConfig:
        if item.encoding is None or "encoding" in self.config.model_fields_set:
            return self.config
        try:
            return ParserConfig.model_validate(self.config.model_dump(exclude_unset=True) | {"encoding": item.encoding})
        except ValidationError:
            # A server can name an encoding that does not exist.
            return self.config


@dataclass(frozen=True)
class Download:
    """An item that was downloaded into a staging file, and is not in the cache yet."""

    entry: NewEntry
    file: StagingFile
    bad_row_examples: tuple[dict[str, object], ...]


def read_items(
    reader: Reader, store: BlobStore, format_: Format, known: Mapping[str, NewEntry], limits: Limits, *, force: bool
) -> Iterator[Download | NewEntry]:
    """Every item of a source in its order: a download, or the known entry when it is unchanged. Raises `FetchFailure`.

    The caller publishes or discards the file of a download before it takes the next item.
    """
    validators = {key: Validators.from_json(entry.validators) for key, entry in known.items()}
    most_examples = MOST_EXAMPLES
    for item in reader.items(validators, force):
        if isinstance(item, Unchanged):
            yield known[item.key].with_validators(item.validators.to_json())
        else:
            download = _download(item, store, format_, limits, most_examples)
            most_examples -= len(download.bad_row_examples)
            yield download


def _download(item: Item, store: BlobStore, format_: Format, limits: Limits, most_examples: int) -> Download:
    file = store.stage()
    try:
        for chunk in item.chunks:
            file.write(chunk)
        staged = file.finish()
        parsed = format_.parse(file, item, limits)
    except BaseException:
        file.discard()
        raise
    entry = NewEntry(
        key=item.key,
        name=item.name,
        content_hash=staged.content_hash,
        size_bytes=staged.size_bytes,
        content_type=item.content_type,
        encoding=item.encoding,
        validators=item.validators.to_json(),
        rows=parsed.rows if parsed else None,
        bad_rows=parsed.bad_rows if parsed else 0,
    )
    return Download(entry, file, _bad_row_examples(item, parsed)[:most_examples])


def _bad_row_examples(item: Item, parsed: Parsed | None) -> tuple[dict[str, object], ...]:
    if parsed is None:
        return ()
    return tuple({"file": item.name, "line": row.line, "reason": row.reason} for row in parsed.examples)
