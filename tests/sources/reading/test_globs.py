"""Patterns of paths."""

import pytest

from api.sources.reading.globs import path_matches


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
