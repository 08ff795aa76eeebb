"""What goes wrong with the cache's storage, in sentences without what may be secret in its URL."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# Waiting does not help against these.
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


class BlobMissing(FetchFailure):
    """The store has no content of this hash (any more); the next fetch brings it again."""

    def __init__(self, content_hash: str) -> None:
        sentence = f"The content {content_hash} is no longer in the cache."
        super().__init__(ErrorCategory.STORAGE, sentence, transient=True)
        self.content_hash = content_hash

    def __reduce__(self) -> tuple[object, ...]:
        """How to make it again."""
        return BlobMissing, (self.content_hash,)


@contextmanager
def local_errors() -> Iterator[None]:
    """Translate what the operating system says of the cache's folder into `FetchFailure`."""
    try:
        yield
    except OSError as error:
        raise _of_system(error, "The cache's folder cannot be used") from None


@contextmanager
def remote_errors(protocol: str) -> Iterator[None]:
    """Translate what a file system of fsspec raises into `FetchFailure`.

    Each protocol has a client of its own with errors of its own, and their words may hold parts of the URL, so that
    only the kind of error is told.
    """
    try:
        yield
    except FetchFailure:
        raise
    except PermissionError:
        sentence = f"The cache's storage ({protocol}) does not let Spine in."
        raise FetchFailure(ErrorCategory.STORAGE, sentence) from None
    except Exception as error:
        sentence = f"The cache's storage ({protocol}) cannot be used now ({type(error).__name__})."
        raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=True) from None


def _of_system(error: OSError, what: str) -> FetchFailure:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return FetchFailure(ErrorCategory.STORAGE, f"{what}: {reason}.", transient=error.errno not in _LASTING)
