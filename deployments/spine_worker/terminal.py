"""Output of runs without a terminal. Code checks whether it writes to one, and then prints colours and progress bars.

Runs of Prefect's process worker write to pipes. A worker that writes to a file or a pipe gives it to its runs. One that
was started in a terminal copies what they write.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDOUT, _STDERR = 1, 2


@contextmanager
def outputs() -> Iterator[tuple[int, int]]:
    """The descriptors of stdout and stderr for a process that is started inside the `with` block."""
    opened: list[int] = []
    try:
        yield _output(_STDOUT, opened), _output(_STDERR, opened)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _output(ours: int, opened: list[int]) -> int:
    if not os.isatty(ours):
        return ours
    reads, writes = os.pipe()
    opened.append(writes)
    threading.Thread(target=_copy, args=(reads, ours), name="output of runs", daemon=True).start()
    return writes


def _copy(source: int, target: int) -> None:
    """Copy until all processes that write into the pipe have ended."""
    with suppress(OSError), os.fdopen(source, "rb", buffering=0) as pipe:
        while written := pipe.read(1 << 16):
            while written:
                written = written[os.write(target, written) :]
