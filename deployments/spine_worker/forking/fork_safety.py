"""Whether what a process has imported can be shared with the processes that are forked from it."""

import os

# Of the allocator that Arrow and Polars bring along, which looks after its threads in a fork by itself.
_HARMLESS = {"jemalloc_bg_thd"}


class Sharing:
    """Compares a process with what it was before an import."""

    def __init__(self) -> None:
        self._before = _descriptors()

    def obstacle(self) -> str | None:
        """Why a fork of this process would share what each run has to have of its own."""
        # Libraries that can be forked end their threads before a fork, and begin them anew when they are needed.
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        if len(_threads()) > 1:
            return "starts threads"
        if opened := _descriptors() - self._before:
            return f"keeps {sorted(opened)[0].partition(':')[0]} open"
        return None


def _threads() -> list[str]:
    """The ids of this process' threads, without the harmless ones."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as name:
                if name.read().strip() not in _HARMLESS:
                    found.append(thread)
        except OSError:  # It has ended meanwhile.
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
