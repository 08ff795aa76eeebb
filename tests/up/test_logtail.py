from pathlib import Path

import pytest
from spine.up.console import last_words, lines_since


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it wrote no output"),
        ("one\ntwo\n\n", "two"),
        (
            "Traceback (most recent call last):\n  File\nValueError: no such pool\n\nServer stopped!\n",
            "ValueError: no such pool",
        ),
        ('{"event": "cannot start", "level": "error"}\n', "cannot start"),
        ("ConnectionError: postgresql://spine:secret@db/spine\n", "ConnectionError: postgresql://spine:***@db/spine"),
        ("╭─ Error ─╮\n│ \x1b[31mwork pool missing\x1b[0m │\n╰─────────╯\n", "work pool missing"),
    ],
)
def test_the_line_that_explains_the_end_is_found(tmp_path: Path, log: str, words: str) -> None:
    path = tmp_path / "log"
    path.write_text("from an earlier start: ValueError: old\n" + log)
    assert last_words(lines_since(path, offset=39)) == words
