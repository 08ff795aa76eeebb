"""Failures of the cache storage, in sentences without the secrets that its URL may contain."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# Errors that waiting does not mend.
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


class BlobMissing(FetchFailure):
    """The store has no content with this hash, or no longer; the next fetch restores it."""

    def __init__(self, content_hash: str) -> None:
        sentence = f"The content {content_hash} is no longer in the cache."
        super().__init__(ErrorCategory.STORAGE, sentence, transient=True)
        self.content_hash = content_hash

    def __reduce__(self) -> tuple[object, ...]:
        """For pickling."""
        return BlobMissing, (self.content_hash,)


class StoreMismatch(FetchFailure):
    """The store of this process is not the one of its database. Nothing in either may be deleted because of it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorCategory.STORAGE, sentence)

    def __reduce__(self) -> tuple[object, ...]:
        """For pickling."""
        return StoreMismatch, (self.sentence,)


@contextmanager
def local_errors() -> Iterator[None]:
    """Translate the errors of the operating system about the cache folder into `FetchFailure`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        sentence = f"The cache folder cannot be used: {reason}."
        raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=error.errno not in _LASTING) from None


@contextmanager
def remote_errors(protocol: str) -> Iterator[None]:
    """Translate the errors of an fsspec file system into `FetchFailure`.

    Each protocol has a client with errors of its own. Their texts may contain parts of the URL, so only the type of
    the error is reported.
    """
    try:
        yield
    except FetchFailure:
        raise
    except PermissionError:
        sentence = f"The cache storage ({protocol}) denies access."
        raise FetchFailure(ErrorCategory.STORAGE, sentence) from None
    except Exception as error:
        sentence = f"The cache storage ({protocol}) is unavailable ({type(error).__name__})."
        raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=True) from None
