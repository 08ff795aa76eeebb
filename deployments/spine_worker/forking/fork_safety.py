"""Whether the processes that are forked from this one can share what it has imported."""

import os

# A thread of jemalloc, the allocator of Arrow and Polars, which restarts it after a fork.
_SAFE_THREADS = {"jemalloc_bg_thd"}


class ForkSafety:
    """Compares this process with what it was before an import."""

    def __init__(self) -> None:
        self._before = _descriptors()

    def side_effect(self) -> str | None:
        """What the import has left in this process that each run needs for itself."""
        # Libraries that support forks end their threads before one, and start them again when they are needed.
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        if len(_threads()) > 1:
            return "starts threads"
        if opened := _descriptors() - self._before:
            return f"keeps {sorted(opened)[0].partition(':')[0]} open"
        return None


def _threads() -> list[str]:
    """The ids of the threads of this process, without those that are safe."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as name:
                if name.read().strip() not in _SAFE_THREADS:
                    found.append(thread)
        except OSError:  # The thread has ended in the meantime.
            continue
    return found


def _descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # The descriptor of the listing itself.
            continue
        if not target.startswith("/dev/"):
            found.add(f"a {'socket' if target.startswith('socket') else 'file'}:{number}:{target}")
    return found
