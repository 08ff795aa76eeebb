"""Path patterns, the same for all source types: `*`, `?` and `[...]` within a name, `**` for any directories.

As in a shell, wildcards do not match the leading dot of a hidden name: files that are still being written often have
such names. A part of a pattern also matches the name that it is, character by character, and then no other: with
`rep[1].csv` beside `rep1.csv`, the pattern `rep[1].csv` is the first.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from itertools import islice

from spine.sources.readers.base import MOST_FILES, no_match, too_many_matches

ANY_DIRECTORIES = "**"
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: `is_directory` does not follow links, `is_file` does."""

    name: str
    path: str
    is_directory: bool
    is_file: Callable[[], bool]


Listing = Callable[[str], Iterable[Entry]]


def has_magic(pattern: str) -> bool:
    """Whether a path contains wildcards."""
    return _MAGIC.search(pattern) is not None


def literal_parts(parts: list[str]) -> list[str]:
    """The directories before the first part that contains wildcards."""
    for index, part in enumerate(parts):
        if has_magic(part):
            return parts[:index]
    return parts[:-1]


@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    matches_hidden = pattern.startswith(".")
    return re.compile(translate(pattern) if matches_hidden else rf"(?!\.){translate(pattern)}")


def name_matches(pattern: str, name: str) -> bool:
    """Whether one name matches one part of a pattern; `**` as a part matches any name that is not hidden."""
    return pattern == name or _compiled(pattern).match(name) is not None


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern."""
    names = path.split("/")
    # How many leading names the parts of the pattern so far can match.
    reached = {0}
    for part in pattern.split("/"):
        if part == ANY_DIRECTORIES:
            reached = {end for start in reached for end in _spans(names, start)}
        else:
            reached = {end + 1 for end in reached if end < len(names) and name_matches(part, names[end])}
    return len(names) in reached


def without_others(pattern: str, paths: Collection[str]) -> list[str]:
    """Of paths that match a pattern, those with the exact names in it, if there are any.

    After `**` only the last name is compared, because it is unknown which part a directory matches.
    """
    parts = pattern.split("/")
    until = parts.index(ANY_DIRECTORIES) if ANY_DIRECTORIES in parts else len(parts)
    found = list(paths)
    for at in [*range(until), *([-1] if until < len(parts) and parts[-1] != ANY_DIRECTORIES else [])]:
        exact = [path for path in found if path.split("/")[at] == parts[at]]
        found = exact or found
    return found


def _spans(names: list[str], start: int) -> list[int]:
    ends = [start]
    for index in range(start, len(names)):
        if names[index].startswith("."):
            break
        ends.append(index + 1)
    return ends


def find(pattern: str, directory: str, listing: Listing, shown: str) -> list[str]:
    """The sorted paths of files that match a pattern below a directory; `listing` lists one directory.

    Links to files match. Links to directories are followed only in the literal beginning of the pattern: elsewhere they
    could form a cycle. Raises `FetchFailure`, which names the pattern as `shown`, if no file or too many files match.
    """
    found = list(islice(_found(pattern.split("/"), directory, listing), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise too_many_matches(shown)
    if not found:
        raise no_match(shown)
    below = {path[len(path_below(directory, "")) :]: path for path in found}
    return sorted(below[path] for path in without_others(pattern, below))


def path_below(directory: str, name: str) -> str:
    """The path of a name in a directory; the empty directory is the one where relative paths begin."""
    return f"{directory.rstrip('/')}/{name}" if directory else name


def _found(parts: list[str], directory: str, listing: Listing) -> Iterator[str]:
    start = literal_parts(parts)
    # Each directory is listed once, with the indexes of all parts that a name in it may match.
    waiting = [(path_below(directory, "/".join(start)) if start else directory, _with_skipped(parts, {len(start)}))]
    while waiting:
        above, indexes = waiting.pop()
        for entry in listing(above):
            matching = {at for at in indexes if name_matches(parts[at], entry.name)}
            if not entry.is_directory:
                if len(parts) - 1 in matching and entry.is_file():
                    yield entry.path
            elif below := _with_skipped(parts, {at if parts[at] == ANY_DIRECTORIES else at + 1 for at in matching}):
                waiting.append((entry.path, below))


def _with_skipped(parts: list[str], indexes: Collection[int]) -> set[int]:
    """These indexes of parts, and those after each `**`, which may match no directory at all."""
    reached = set()
    for index in indexes:
        at = index
        while at < len(parts) and parts[at] == ANY_DIRECTORIES:
            reached.add(at)
            at += 1
        if at < len(parts):
            reached.add(at)
    return reached
