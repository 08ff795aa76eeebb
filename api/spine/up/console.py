"""How `spine up` shows what it does: a line for each step, with its time, at once.

Without a terminal the lines are plain text, so that a supervisor's log stays readable.
"""

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console as RichConsole
from rich.markup import escape

from spine.up.errors import StopRequested


@dataclass
class Step:
    """A step that is under way; `detail` is what its line says beside the time."""

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
        # A reader that went away (`spine up | head`, a closed terminal) must not keep us from stopping the children.
        with contextlib.suppress(OSError):
            print(text, file=self._out, flush=True)

    def _line(self, mark: str, colour: str, title: str, seconds: float, detail: str) -> None:
        text = f"{title:<20} {seconds:5.1f} s   {detail}".rstrip()
        if not self._rich.is_terminal:
            self.say(f"{mark} {text}")
            return
        with contextlib.suppress(OSError):
            self._rich.print(f"[{colour}]{mark}[/] {escape(text)}")
