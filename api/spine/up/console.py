"""How `spine up` shows what it does: a line for each step, with its time, at once.

Without a terminal the lines are plain text, so that a supervisor's log stays readable. The end of a child is
explained by one line of its log.
"""

import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.markup import escape

from spine.up.waiting import StopRequested


@dataclass
class Step:
    """A step in progress; `detail` is the text of its line after the time."""

    detail: str = ""


class Console:
    """Prints steps and the summary."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        if isinstance(self._out, io.TextIOWrapper):
            # A terminal that cannot show a tick gets a question mark, not an exception.
            self._out.reconfigure(errors="replace")
        self._rich = RichConsole(file=self._out, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, title: str, *, if_detail: bool = False) -> Iterator[Step]:
        """Show `title` as running, then with a tick or a cross and the seconds it took.

        With `if_detail` the line of a step that went well is left out unless it got a detail.
        """
        step = Step()
        begun = time.monotonic()
        spinner = self._rich.status(title) if self._rich.is_terminal else contextlib.nullcontext()
        try:
            with spinner:
                yield step
        except StopRequested:
            self._line("-", "yellow", title, time.monotonic() - begun, "not finished")
            raise
        except BaseException:
            self._line("✗", "red", title, time.monotonic() - begun, "")
            raise
        if step.detail or not if_detail:
            self._line("✓", "green", title, time.monotonic() - begun, step.detail)

    def say(self, text: str = "") -> None:
        """Print one line as it is."""
        # A reader that has gone (`spine up | head`, a closed terminal) must not prevent the stop of the children.
        with contextlib.suppress(OSError):
            print(text, file=self._out, flush=True)

    def failure(self, title: str, reason: str) -> None:
        """Show what failed without ending the start."""
        text = f"{title}: {reason}"
        if not self._rich.is_terminal:
            self.say(f"! {text}")
            return
        with contextlib.suppress(OSError):
            self._rich.print(f"[yellow]![/] {escape(text)}")

    def _line(self, mark: str, colour: str, title: str, seconds: float, detail: str) -> None:
        text = f"{title:<20} {seconds:5.1f} s   {detail}".rstrip()
        if not self._rich.is_terminal:
            self.say(f"{mark} {text}")
            return
        with contextlib.suppress(OSError):
            self._rich.print(f"[{colour}]{mark}[/] {escape(text)}")


_TAIL_BYTES = 64 * 1024
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
# Rich draws boxes around errors; colour codes mean nothing in a sentence.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|[─-╿]")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Unavailable)\b.*")
_NOISE = (
    "Server stopped!",
    "For further information visit",
    "(Background on this error at",
    "An exception occurred",
    "^^",
)


def lines_since(log: Path, offset: int, *, whole: bool = False) -> list[str]:
    """The lines written after byte `offset`, without decoration, blanks and noise; the last 64 KiB unless `whole`."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(offset if whole else max(offset, size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = (_DECORATION.sub("", line).rstrip() for line in text.splitlines())
    return [line for line in lines if line.strip() and not line.strip().startswith(_NOISE)]


def last_words(lines: list[str], at_most: int = 1) -> str:
    """The best explanation of an end: the last exception, else the last lines, at most `at_most`."""
    if not lines:
        return "it wrote no output"
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    return presentable(exceptions[-1] if exceptions else " ".join(_message(line) for line in lines[-at_most:]))


def presentable(text: str) -> str:
    """One line without passwords, at most 400 characters."""
    return _PASSWORD.sub(r"\1:***@", " ".join(text.split()))[:400]


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("event", line)) if isinstance(entry, dict) else line
