"""What the tests of `read_source` share: a flow that uses a source, and queries for what it recorded."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from prefect import flow, runtime, task
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.flows.read_source import SourceContent, read_source
from spine.settings import Settings
from spine.sources.fetching.context import FetchContext
from spine.sources.schemas import FetchDetail
from spine.tables.cache import CacheLease
from spine.tables.sources import Fetch
from sqlalchemy import select

from tests.sources.support import NO_PREFECT, Desk
from tests.support.databases import migrate
from tests.support.receivers import Receiver

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n2026-01-05,BBB,2\n"
MORE_ROWS = ROWS + b"2026-01-05,CCC,3\n"
BAD_ROWS = ROWS + b"2026-01-05,CCC,3,4\n2026-01-05,DDD,5\n"
AT_ONCE = timedelta(0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@asynccontextmanager
async def desk_of_flows() -> AsyncIterator[Desk]:
    """A desk on the database and the cache that flows find in the environment."""
    settings = Settings()
    migrate(settings.sqlalchemy_url)
    engine = make_engine(settings.sqlalchemy_url)
    context = FetchContext(settings, make_sessions(engine), NO_PREFECT, BlobStore.from_settings(settings))
    yield Desk(context, settings.file_roots[0])
    await engine.dispose()


def url_of(site: Receiver) -> str:
    return f"http://127.0.0.1:{site.port}/trades.csv"


@flow(name="tests.uses_a_source", persist_result=False)
def use(source: str, max_age: timedelta | None = None) -> tuple[str, SourceContent]:
    return str(runtime.flow_run.id), read_source(source, max_age=max_age)


@task(persist_result=False)
def read_in_a_task(source: str) -> SourceContent:
    return read_source(source)


async def fetches(desk: Desk, name: str) -> list[FetchDetail]:
    """All fetches of a source, oldest first."""
    source = await desk.source(name)
    async with desk.context.sessions() as session:
        ids = (await session.scalars(select(Fetch.id).where(Fetch.source_id == source.id).order_by(Fetch.id))).all()
    return [await desk.read_fetch(fetch_id) for fetch_id in ids]


async def holds(desk: Desk) -> list[str]:
    async with desk.context.sessions() as session:
        return list((await session.scalars(select(CacheLease.holder))).all())
