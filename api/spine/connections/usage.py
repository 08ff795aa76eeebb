"""The number of open sessions of each connection in this process; there is no pool."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_open: Counter[str] = Counter()
_lock = Lock()


@contextmanager
def track_session(connection_id: str) -> Iterator[None]:
    """Count a session while the block runs."""
    with _lock:
        _open[connection_id] += 1
    try:
        yield
    finally:
        with _lock:
            _open[connection_id] -= 1


def open_sessions(connection_id: str) -> int:
    """The number of sessions that are open now."""
    return _open[connection_id]
