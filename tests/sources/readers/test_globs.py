"""Patterns of paths."""

import glob
from collections.abc import Iterator
from pathlib import Path

import pytest
from spine.sources.readers.globs import Entry, find, path_below, path_matches


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a/*.csv", "a/b.csv"),
        ("a/**/*.csv", "a/b.csv"),
        ("a/**/*.csv", "a/x/y/b.csv"),
        ("**", "a/b"),
        ("a/[bc]?", "a/c1"),
        ("a/[[]b]", "a/[b]"),
        ("a/.*", "a/.b"),
    ],
)
def test_a_pattern_matches(pattern: str, path: str) -> None:
    assert path_matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a/*.csv", "a/b/c.csv"),
        ("a/*.csv", "a/.b.csv"),
        ("a/**/*.csv", "a/.hidden/b.csv"),
        ("a/*", "b/a"),
        ("a/[bc]", "a/d"),
        ("a/**/c", "a/b"),
        ("a.c", "abc"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, path: str) -> None:
    assert not path_matches(pattern, path)


PATTERNS = [
    "*",
    "**",
    "**/*",
    "*/*.csv",
    "**/*.csv",
    "a/**",
    "a/*/**",
    "**/a/*.csv",
    "*/**/b/*",
    "**/**/**/1.csv",
    "a/**/b/**/?.csv",
    "[ab]/b/[[]1]",
    ".*/*",
    "**/.*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_files_are_found_as_a_shell_finds_them_and_each_folder_is_listed_once(tmp_path: Path, pattern: str) -> None:
    for folder in ("", "a", "b", "a/b", "a/a/b", "a/b/a/b", "b/b", ".h", "a/.h"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("1.csv", "2.txt", "[1]", ".3.csv"):
            (tmp_path / folder / name).write_bytes(b"")
    listed = []

    def listing(folder: str) -> Iterator[Entry]:
        listed.append(folder)
        for path in Path(folder).iterdir():
            yield Entry(path.name, path_below(folder, path.name), path.is_dir(), path.is_file)

    expected = [path for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if Path(path).is_file()]
    assert find(pattern, str(tmp_path), listing, pattern) == sorted(set(expected))
    assert len(set(listed)) == len(listed)
