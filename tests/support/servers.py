"""What all test processes share, and how it is started."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s3fs  # type: ignore[import-untyped]

from tests.support.postgres import fresh_database, postgresql_server
from tests.support.processes import free_port, running, wait_for_http
from tests.support.shared import Maker, Shared
from tests.support.stack import FOLLOWING, Api, PrefectStack, api_process, bare_stack, prefect_stack


@contextmanager
def _api(shared: Shared, folder: Path) -> Iterator[Api]:
    """The API on SQLite; it follows Prefect."""
    stack: PrefectStack = shared.get("stack", folder.parent)
    with api_process(stack.url, stack.home, folder, **FOLLOWING) as started:
        yield started.patient()


@contextmanager
def _postgresql_api(shared: Shared, folder: Path) -> Iterator[Api]:
    """The API on PostgreSQL; it leaves following Prefect to the one on SQLite."""
    stack: PrefectStack = shared.get("stack", folder.parent)
    with (
        fresh_database(shared.get("postgresql", folder.parent)) as database,
        api_process(stack.url, stack.home, folder, database) as started,
    ):
        yield started.patient()


@contextmanager
def _second_postgresql_api(shared: Shared, folder: Path) -> Iterator[Api]:
    """Another process on the database of the first."""
    stack: PrefectStack = shared.get("stack", folder.parent)
    first: Api = shared.get("postgresql_api", folder.parent)
    home = first.settings.home
    same = {"SPINE_SECRET_KEY": (home / "secret-key").read_text().strip(), "SPINE_CACHE_URL": str(home / "cache")}
    with api_process(stack.url, stack.home, folder, first.database_url, **same) as started:
        yield started.patient()


@contextmanager
def _worker_api(shared: Shared, folder: Path) -> Iterator[Api]:
    """An API on the database and the cache of the worker."""
    stack: PrefectStack = shared.get("stack", folder.parent)
    settings = {name: value for name, value in stack.environment.items() if name.startswith("SPINE_")}
    with api_process(stack.url, stack.home, Path(settings.pop("SPINE_HOME")), **settings, **FOLLOWING) as started:
        yield started.patient()


@contextmanager
def _quiet_api(shared: Shared, folder: Path) -> Iterator[Api]:
    """The API over the quiet server; it does not follow."""
    stack: PrefectStack = shared.get("quiet_stack", folder.parent)
    with api_process(stack.url, stack.home, folder) as started:
        yield started.patient()


@contextmanager
def _s3(_: Shared, folder: Path) -> Iterator[str]:
    """The URL of moto's S3 server, with its buckets."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "moto.log"
    with running(["moto.server", "-p", str(port)], {}, log) as server:
        wait_for_http(f"{url}/moto-api/", server, log)
        files = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=url, skip_instance_cache=True)
        for bucket in ("cache", "desk", "warehouse"):
            files.mkdir(bucket)
        yield url


# Each stands after those that it needs.
MAKERS: dict[str, Maker] = {
    "s3": _s3,
    "stack": lambda _, folder: prefect_stack(folder),
    "quiet_stack": lambda _, folder: bare_stack(folder, on_sqlite=True),
    "postgresql": lambda _, folder: postgresql_server(folder),
    "api": _api,
    "postgresql_api": _postgresql_api,
    "second_postgresql_api": _second_postgresql_api,
    "worker_api": _worker_api,
    "quiet_api": _quiet_api,
}
