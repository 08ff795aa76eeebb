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


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("rep[1].csv", ["rep[1].csv"]),
        ("rep[12].csv", ["rep1.csv", "rep2.csv"]),
        ("rep*.csv", ["rep*.csv"]),
        ("re?*.csv", ["rep*.csv", "rep1.csv", "rep2.csv", "rep[1].csv"]),
        ("d[1]/*.csv", ["d[1]/a.csv", "d[1]/b.csv"]),
        ("d[1]/[b].csv", ["d[1]/b.csv"]),
        ("d[2]/*.csv", ["d2/a.csv", "d2/b.csv"]),
        ("d[1]/**/b.csv", ["d[1]/b.csv"]),
        ("**/rep[1].csv", ["rep[1].csv"]),
        # A folder of this name is not what is looked for.
        ("f[1].csv", ["f1.csv"]),
    ],
)
@pytest.mark.parametrize("start", ["", "deep/er"])
def test_an_exact_name_wins_over_a_pattern(tmp_path: Path, pattern: str, expected: list[str], start: str) -> None:
    root = tmp_path / start
    for name in ("rep[1].csv", "rep1.csv", "rep2.csv", "rep*.csv", "f1.csv", *(f"d{at}/a.csv" for at in ("[1]", 1, 2))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
        if name.startswith("d"):
            (root / name).with_name("b.csv").write_bytes(b"")
    (root / "f[1].csv").mkdir()

    def listing(folder: str) -> Iterator[Entry]:
        for path in Path(folder).iterdir():
            yield Entry(path.name, path_below(folder, path.name), path.is_dir(), path.is_file)

    assert find(pattern, str(root), listing, pattern) == [f"{root}/{name}" for name in expected]


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
