"""How many sessions of each connection this process has open; none is kept for later."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_open: Counter[str] = Counter()
_lock = Lock()


@contextmanager
def counted(connection_id: str) -> Iterator[None]:
    """Count a session for as long as the block lasts."""
    with _lock:
        _open[connection_id] += 1
    try:
        yield
    finally:
        with _lock:
            _open[connection_id] -= 1


def open_sessions(connection_id: str) -> int:
    """How many sessions are open now."""
    return _open[connection_id]
