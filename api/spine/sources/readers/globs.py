"""Patterns of paths, the same for all types of sources: `*`, `?` and `[...]` within a name, `**` for any folders.

As in a shell no wildcard stands for the dot that a hidden name begins with: files that are still being put in place
often have such a name.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from itertools import islice

from spine.sources.readers.base import MOST_FILES, none_matches, too_many_match

ANY_FOLDERS = "**"
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Entry:
    """What a folder has: `is_folder` only for folders themselves, while `is_file` looks through links."""

    name: str
    path: str
    is_folder: bool
    is_file: Callable[[], bool]


Listing = Callable[[str], Iterable[Entry]]


def has_magic(pattern: str) -> bool:
    """Whether a path is a pattern."""
    return _MAGIC.search(pattern) is not None


def literal_parts(parts: list[str]) -> list[str]:
    """The folders before the first part that is a pattern."""
    for index, part in enumerate(parts):
        if has_magic(part):
            return parts[:index]
    return parts[:-1]


@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    hidden_too = pattern.startswith(".")
    return re.compile(translate(pattern) if hidden_too else rf"(?!\.){translate(pattern)}")


def name_matches(pattern: str, name: str) -> bool:
    """Whether one name fits one part of a pattern; `**` as a part fits any name that is not hidden."""
    return _compiled(pattern).match(name) is not None


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path fits a pattern."""
    names = path.split("/")
    # Which numbers of leading names the parts of the pattern so far can stand for.
    reached = {0}
    for part in pattern.split("/"):
        if part == ANY_FOLDERS:
            reached = {end for start in reached for end in _spans(names, start)}
        else:
            reached = {end + 1 for end in reached if end < len(names) and name_matches(part, names[end])}
    return len(names) in reached


def _spans(names: list[str], start: int) -> list[int]:
    ends = [start]
    for index in range(start, len(names)):
        if names[index].startswith("."):
            break
        ends.append(index + 1)
    return ends


def find(pattern: str, folder: str, listing: Listing, shown: str) -> list[str]:
    """The paths of files that fit a pattern which begins at a folder, in order; `listing` gives what a folder has.

    Files are found through links; folders are not walked into through them, which could go round for ever, but for
    those that the pattern begins with. Raises `FetchFailure`, which calls the pattern what is `shown`, when there are
    none or too many.
    """
    found = list(islice(_found(pattern.split("/"), folder, listing), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise too_many_match(shown)
    if not found:
        raise none_matches(shown)
    return sorted(found)


def path_below(folder: str, name: str) -> str:
    """What is of a name in a folder; the folder without a name is the one where relative paths begin."""
    return f"{folder.rstrip('/')}/{name}" if folder else name


def _found(parts: list[str], folder: str, listing: Listing) -> Iterator[str]:
    start = literal_parts(parts)
    # Each folder is listed once, with all the parts of the pattern that a name in it may have to fit.
    waiting = [(path_below(folder, "/".join(start)) if start else folder, _or_next(parts, {len(start)}))]
    while waiting:
        above, places = waiting.pop()
        for entry in listing(above):
            fitting = {at for at in places if name_matches(parts[at], entry.name)}
            if not entry.is_folder:
                if len(parts) - 1 in fitting and entry.is_file():
                    yield entry.path
            elif below := _or_next(parts, {at if parts[at] == ANY_FOLDERS else at + 1 for at in fitting}):
                waiting.append((entry.path, below))


def _or_next(parts: list[str], places: Collection[int]) -> set[int]:
    """These places in a pattern, and those behind each `**`, which may stand for no folder at all."""
    reached = set()
    for place in places:
        at = place
        while at < len(parts) and parts[at] == ANY_FOLDERS:
            reached.add(at)
            at += 1
        if at < len(parts):
            reached.add(at)
    return reached
