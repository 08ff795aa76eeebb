"""The memory limit of a process, which the kernel enforces."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# In messages of libraries that translate a failed allocation into an error of their own.
_SIGNS = (
    *("out of memory", "bad_alloc", "bad alloc", "malloc of size", "cannot allocate memory"),
    # What psycopg says when libpq has no memory for a row.
    "received 2 results from command 'fetch",
)
_DATA_FIELD = 5


def limit_memory(limit_bytes: int) -> None:
    """Let this process allocate up to `limit_bytes` more than it has now, and be the first that the system kills."""
    limit = _allocated() + limit_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    # Unlike the limit of the address space, this does not count files that are mapped into memory.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _allocated() -> int:
    """The bytes of private memory that this process has allocated."""
    return int(Path("/proc/self/statm").read_text().split()[_DATA_FIELD]) * os.sysconf("SC_PAGESIZE")


def is_memory_error(error: BaseException) -> bool:
    """Whether an error results from a failed allocation, also if another error has replaced the first one."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # A sentence of ours quotes what a source says.
        told = "" if isinstance(one, FetchFailure) else str(one).lower()
        if isinstance(one, MemoryError) or any(sign in told for sign in _SIGNS):
            return True
        pending += [one.__cause__, one.__context__]
    return False


def too_much_memory(limit_bytes: int) -> FetchFailure:
    """The failure of work that needs more memory than it may use."""
    sentence = (
        f"Reading the source needs more than the {limit_bytes:,} bytes of memory that SPINE_READ_MEMORY_BYTES allows."
    )
    return FetchFailure(ErrorCategory.SOURCE, sentence)
