"""Blobs in any other storage that fsspec can write; the only module of the cache that imports fsspec."""

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]

from spine.cache.failures import BlobMissing, remote_errors
from spine.cache.local_blobs import MARKER
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# An upload to these appears completely or not at all.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
_MEBIBYTE = 1024 * 1024
# Bounds the memory of one upload; the defaults of s3fs are ten times 50 MiB.
_S3_UPLOAD = {"chunksize": 8 * _MEBIBYTE, "max_concurrency": 4}
# S3 takes at most 10,000 parts of one object; some room is left.
_S3_PARTS = 9_000
_S3_CLIENT: dict[str, Any] = {"connect_timeout": 4, "read_timeout": 30, "retries": {"max_attempts": 2}}
# An unfinished upload that is older was left by a dead process.
_SECONDS_OF_AN_UPLOAD = 86_400
_READ_BYTES = 4 * _MEBIBYTE


class RemoteBlobs:
    """The blobs below one URL. Raises `FetchFailure`."""

    def __init__(self, url: str) -> None:
        self._protocol = url.partition("://")[0].partition("::")[0]
        self._is_s3 = self._protocol in ("s3", "s3a")
        # Several processes write here, so a listing must never come from a cache.
        options: dict[str, Any] = {}
        try:
            if self._is_s3:
                from spine.egress.s3_session import ModernSession

                options["config_kwargs"] = {**_S3_CLIENT, "http_session_cls": ModernSession}
            self._files, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
        except (ImportError, ValueError) as error:
            sentence = f"SPINE_CACHE_URL cannot be opened ({self._protocol}): {type(error).__name__}."
            raise FetchFailure(ErrorCategory.STORAGE, sentence) from None
        self._root = root.rstrip("/")

    def local_path(self, content_hash: str) -> Path | None:
        """None: blobs are not files of this machine."""
        return None

    def publish(self, staging_path: Path, content_hash: str, size_bytes: int) -> None:
        """Upload a staging file as a blob; readers see all of it or nothing."""
        if self.size(content_hash) != size_bytes:
            with remote_errors(self._protocol):
                self._upload(staging_path, self._path(content_hash), size_bytes)
            if self.size(content_hash) != size_bytes:
                sentence = f"The cache storage ({self._protocol}) did not store the whole content."
                raise FetchFailure(ErrorCategory.STORAGE, sentence, transient=True)
        staging_path.unlink(missing_ok=True)

    def _upload(self, staging_path: Path, path: str, size_bytes: int) -> None:
        if self._is_s3:
            chunk = max(_S3_UPLOAD["chunksize"], size_bytes // _S3_PARTS)
            self._files.put_file(str(staging_path), path, **{**_S3_UPLOAD, "chunksize": chunk})
        elif self._protocol in _OBJECT_STORES:
            self._files.put_file(str(staging_path), path)
        else:
            upload = f"{self._root}/uploads/{uuid4().hex}"
            self._files.makedirs(f"{self._root}/uploads", exist_ok=True)
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(staging_path), upload)
            self._files.mv(upload, path)

    def open(self, content_hash: str) -> BinaryIO:
        """The bytes of a blob, as a seekable file. Raises `BlobMissing`."""
        with remote_errors(self._protocol):
            try:
                opened = self._files.open(
                    self._path(content_hash), "rb", block_size=_READ_BYTES, cache_type="readahead"
                )
            except FileNotFoundError:
                raise BlobMissing(content_hash) from None
        return io.BufferedReader(_TranslatedFile(opened, self._protocol), _MEBIBYTE)

    def size(self, content_hash: str) -> int | None:
        """The size of a blob in bytes; None if it does not exist."""
        with remote_errors(self._protocol):
            try:
                return int(self._files.info(self._path(content_hash))["size"])
            except FileNotFoundError:
                return None

    def delete(self, content_hash: str) -> None:
        """Delete a blob, if it exists."""
        with remote_errors(self._protocol):
            try:
                self._files.rm_file(self._path(content_hash))
            except FileNotFoundError:
                return

    def list(self) -> Iterator[tuple[str, int]]:
        """The name and size in bytes of every file."""
        for folder in self._listed(f"{self._root}/blobs"):
            for found in self._listed(folder["name"]):
                yield found["name"].rpartition("/")[2], int(found["size"])

    def sweep(self) -> None:
        """Delete uploads that a dead process left unfinished."""
        if self._protocol in _OBJECT_STORES:
            return
        for upload in self._listed(f"{self._root}/uploads"):
            with remote_errors(self._protocol):
                if time.time() - self._files.modified(upload["name"]).timestamp() > _SECONDS_OF_AN_UPLOAD:
                    self._files.rm_file(upload["name"])

    def read_marker(self) -> str | None:
        """What the marker contains; None if there is none."""
        with remote_errors(self._protocol):
            try:
                found: bytes = self._files.cat_file(f"{self._root}/{MARKER}")
            except FileNotFoundError:
                return None
            return found.decode(errors="replace").strip()

    def write_marker(self, text: str) -> None:
        """Replace the marker."""
        with remote_errors(self._protocol):
            if self._protocol not in _OBJECT_STORES:
                self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{MARKER}", f"{text}\n".encode())

    def _path(self, content_hash: str) -> str:
        return f"{self._root}/blobs/{content_hash[:2]}/{content_hash}"

    def _listed(self, folder: str) -> Sequence[dict[str, Any]]:
        with remote_errors(self._protocol):
            try:
                found: Sequence[dict[str, Any]] = self._files.ls(folder, detail=True)
            except FileNotFoundError:
                return []
            return found


class _TranslatedFile(io.RawIOBase):
    """A file of fsspec that raises the errors of the cache."""

    def __init__(self, opened: Any, protocol: str) -> None:
        self._opened = opened
        self._protocol = protocol

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def readinto(self, buffer: Any) -> int:
        with remote_errors(self._protocol):
            read: bytes = self._opened.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()
