"""The command line of a process as other processes see it.

The kernel shows the arguments that a program was started with. A process that forks others is therefore started with
blanks as its last argument, over which a forked process writes its own command.
"""

import ctypes
import re
from pathlib import Path

BLANKS = " " * 600


class CommandLine:
    """The bytes of the command line of this process, if the kernel shows where they are."""

    def __init__(self) -> None:
        self._place = _place()

    def show(self, arguments: list[str]) -> None:
        """Let other processes see these arguments; cut if there is no place for all."""
        if self._place is None:
            return
        begin, end = self._place
        text = " ".join(arguments).encode()[: end - begin - 2]
        # Where the last byte is not zero, Linux shows only what is before the first zero.
        ctypes.memmove(begin, text.ljust(end - begin - 1, b"\0") + b" ", end - begin)


def _place() -> tuple[int, int] | None:
    try:
        shown = Path("/proc/self/cmdline").read_bytes()
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        # Fields 48 and 49 of proc(5), of which the first that is left here is the third.
        begin, end = int(fields[45]), int(fields[46])
    except (OSError, ValueError, IndexError):
        return None
    is_ours = end - begin == len(shown) and re.search(rb"\0 {%d}\0$" % len(BLANKS), shown) is not None
    return (begin, end) if is_ours and ctypes.string_at(begin, end - begin) == shown else None
