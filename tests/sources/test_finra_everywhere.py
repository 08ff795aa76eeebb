"""Weekly files of FINRA's layout, fetched from each type of source."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from spine.sources.schemas import FetchDetail

from tests.sources.readers.sftp_server import PASSWORD, USER, SftpServer, sftp_server
from tests.sources.readers.test_s3 import KEYS, endpoint, store
from tests.sources.support import Desk
from tests.support.receivers import Handler, Receiver, receiver
from tests.support.variants import one_by_default
from tests.support.weekly_files import PAIRS, WEEKLY_FILES, WeeklyFile

__all__ = ["endpoint", "store"]


@dataclass
class Places:
    """One folder of files as each type of source sees it."""

    desk: Desk
    site: Receiver
    endpoint: str
    store: Any
    sftp: SftpServer
    # In the bucket, which all tests share.
    prefix: str = field(default_factory=lambda: uuid4().hex)

    def put(self, name: str, content: bytes) -> None:
        """Put a file into every place, with an old modification time."""
        path = self.desk.file(name, content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        self.store.put_object(Bucket="desk", Key=f"{self.prefix}/{name}", Body=content)

    def configs(self, path: str) -> dict[str, dict[str, Any]]:
        """The configuration of each type for a path or a pattern below the folder; the web has no patterns."""
        login = {"username": USER, "password_ref": "env:SPINE_SECRET_SFTP_PASSWORD", "host_key": self.sftp.public_key}
        keys = {name: f"env:SPINE_SECRET_{name.upper()}" for name in KEYS}
        of_type: dict[str, dict[str, Any]] = {
            "file": {"path": path},
            "s3": {"bucket": "desk", "key": f"{self.prefix}/{path}", "endpoint_url": self.endpoint, **keys},
            "sftp": {"host": "127.0.0.1", "port": self.sftp.port, "path": f"/{path}", **login},
        }
        if "*" not in path:
            of_type["http"] = {"url": f"http://127.0.0.1:{self.site.port}/{path}"}
        return of_type

    async def register(self, path: str) -> dict[str, str]:
        """A source of each type; their names."""
        configs = self.configs(path).items()
        return {kind: await self.desk.register(kind, config, parser_type="psv") for kind, config in configs}

    async def fetch(self, sources: dict[str, str]) -> dict[str, FetchDetail]:
        return {kind: await self.desk.fetch(name) for kind, name in sources.items()}


def files_of(folder: Path) -> Any:
    """Respond as a web server of files that sends Last-Modified."""

    def behave(handler: Handler) -> None:
        path = folder / handler.path.lstrip("/")
        changed = formatdate(path.stat().st_mtime, usegmt=True)
        is_known = handler.headers.get("If-Modified-Since") == changed
        headers = {"Last-Modified": changed, "Content-Type": "text/csv"}
        handler.answer(304 if is_known else 200, b"" if is_known else path.read_bytes(), headers)

    return behave


@pytest.fixture
def places(desk: Desk, endpoint: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    for name, value in {**KEYS, "sftp_password": PASSWORD}.items():
        monkeypatch.setenv(f"SPINE_SECRET_{name.upper()}", value)
    with receiver() as site, sftp_server(desk.root) as sftp:
        site.always = files_of(desk.root)
        yield Places(desk, site, endpoint, store, sftp)


def facts(fetches: dict[str, FetchDetail], *fields: str) -> dict[str, tuple[Any, ...]]:
    return {kind: tuple(getattr(fetch, field) for field in fields) for kind, fetch in fetches.items()}


@pytest.mark.parametrize("weekly", one_by_default(WEEKLY_FILES), ids=lambda weekly: weekly.name)
async def test_a_weekly_file_is_the_same_everywhere_and_is_downloaded_once(places: Places, weekly: WeeklyFile) -> None:
    content, sha256 = weekly.content, weekly.sha256
    places.put(weekly.name, content)
    sources = await places.register(weekly.name)
    kinds = ["file", "s3", "sftp", "http"]

    first = await places.fetch(sources)
    assert facts(first, "status", "error") == dict.fromkeys(kinds, ("SUCCESS", None))
    assert facts(first, "content_hash", "capture_id") == dict.fromkeys(kinds, (sha256, sha256))
    assert facts(first, "rows_parsed", "bad_rows") == dict.fromkeys(kinds, (weekly.figures.rows, 0))
    assert facts(first, "bytes_fetched", "content_changed") == dict.fromkeys(kinds, (len(content), True))
    for kind, name in sources.items():
        assert await places.desk.content(name) == [content], kind
    # Four sources share one copy.
    assert list(places.desk.context.store.list()) == [(sha256, len(content))]

    # From now on the server answers no request for the bytes of a file.
    places.sftp.hangs.set()
    again = await places.fetch(sources)
    assert facts(again, "status", "error") == dict.fromkeys(kinds, ("SUCCESS", None))
    assert facts(again, "bytes_fetched", "content_changed") == dict.fromkeys(kinds, (0, False))
    assert facts(again, "content_hash", "rows_parsed") == dict.fromkeys(kinds, (sha256, weekly.figures.rows))
    assert [request.headers.get("If-Modified-Since") is None for request in places.site.requests] == [True, False]
    assert list(places.desk.context.store.list()) == [(sha256, len(content))]


@pytest.mark.parametrize("pair", one_by_default((pair,) for pair in PAIRS), ids=lambda pair: pair[0].name)
async def test_both_weeks_are_one_source_by_a_pattern_and_only_the_new_one_is_downloaded(
    places: Places, pair: tuple[WeeklyFile, WeeklyFile]
) -> None:
    old, new = pair
    places.put(old.name, old.content)
    sources = await places.register("*_otc_weekly_*.csv")
    kinds = ["file", "s3", "sftp"]
    assert facts(await places.fetch(sources), "rows_parsed") == dict.fromkeys(kinds, (old.figures.rows,))
    places.put(new.name, new.content)
    fetches = await places.fetch(sources)
    expected = ("SUCCESS", old.figures.rows + new.figures.rows, len(new.content), True)
    assert facts(fetches, "status", "rows_parsed", "bytes_fetched", "content_changed") == dict.fromkeys(kinds, expected)
    for kind, name in sources.items():
        assert [entry.name for entry in await places.desk.entries(name)] == [old.name, new.name], kind
        assert await places.desk.content(name) == [old.content, new.content], kind
    assert facts(await places.fetch(sources), "bytes_fetched", "content_changed") == dict.fromkeys(kinds, (0, False))
