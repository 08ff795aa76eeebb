"""Key rotation for the secrets of sources and alert channels together: all of them or none."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from spine.administration.rotation import rotate
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.secrets.keyring import KEY_FILE, Keyring, SecretUnreadable, read_key_file
from spine.secrets.sealed import SEALED, seal, unseal
from spine.settings import Settings
from spine.sources.configs import SourceConfigs
from spine.sources.fetching.context import FetchContext
from spine.tables import SEALED_COLUMNS
from spine.tables.alerts import AlertChannel
from spine.tables.base import Base
from sqlalchemy import select, update

from tests.sources.support import NO_PREFECT, Desk
from tests.support.databases import migrate
from tests.support.receivers import Receiver, receiver, refuse

ROWS = b"day,venue\n2026-01-05,AAA\n"
HEADERS = {"X-Desk": "s3cr3t-one", "X-Other": "s3cr3t-two"}
QUERY = "key=s3cr3t-in-query"
# The two headers and the query of the source, and the one secret of the channel.
SECRETS = 4
FILE = {"path": "trades.csv"}


@pytest.fixture(params=["sqlite", "postgresql"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk on either database, with one alert channel."""
    given: dict[str, Any] = {"home": tmp_path / "home", "file_roots": (tmp_path,), "allow_private_addresses": True}
    (tmp_path / "home").mkdir()
    with request.getfixturevalue("postgresql_databases").lend() as url:
        settings = Settings(**given, database_url=url if request.param == "postgresql" else None)
        migrate(settings.sqlalchemy_url)
        engine = make_engine(settings.sqlalchemy_url)
        sessions = make_sessions(engine)
        config = seal({"url": SecretStr("https://hooks.example.com/s3cr3t")}, Keyring.from_settings(settings))
        fields = {"channel_type": "webhook", "min_severity": "ERROR", "enabled": True, "throttle_minutes": 5}
        async with sessions.begin() as session:
            session.add(AlertChannel(name="hook", config=config, recipients=[None], **fields))
        yield Desk(FetchContext(settings, sessions, NO_PREFECT, BlobStore.from_settings(settings)), tmp_path)
        await engine.dispose()


async def register(desk: Desk, site: Receiver) -> str:
    """A source with three secrets, one more without any."""
    site.always = refuse(200, ROWS)
    await desk.register("file", FILE)
    return await desk.register("http", {"url": f"http://127.0.0.1:{site.port}/trades.csv?{QUERY}", "headers": HEADERS})


async def rotate_in(desk: Desk) -> int:
    return await rotate(desk.context.sessions, desk.context.settings, SEALED_COLUMNS)


async def stored(desk: Desk) -> list[Any]:
    """Every configuration that can contain secrets."""
    async with desk.context.sessions() as session:
        return [
            config
            for column in SEALED_COLUMNS
            for config in await session.scalars(select(column).order_by(column.class_.id))
        ]


def keys_of(desk: Desk) -> list[str]:
    return read_key_file(desk.context.settings.home / KEY_FILE)


async def test_the_secrets_of_sources_are_encrypted_again_and_stay_readable(desk: Desk) -> None:
    with receiver() as site:
        name = await register(desk, site)
        running = SourceConfigs(desk.context.settings)
        before, row = await stored(desk), await desk.source(name)
        plain, shown = running.of_source(row), await desk.registry.read(name)
        assert await rotate_in(desk) == SECRETS
        after, rotated = await stored(desk), await desk.source(name)
        for secret in ("query", *HEADERS):
            old, new = (tokens(config)[secret] for config in (row.config, rotated.config))
            assert old != new, secret
        newest, previous = keys_of(desk)
        assert [unseal(config, Keyring([newest])) for config in after] == [
            unseal(config, Keyring([previous])) for config in before
        ]
        # Also for a process that started before the rotation, and for rows that were read before it.
        assert [running.of_source(one) for one in (row, rotated)] == [plain, plain]
        assert await desk.registry.read(name) == shown
        assert "s3cr3t" not in shown.model_dump_json()

        assert (await desk.fetch(name)).rows_parsed == 1
        [request] = site.requests
        assert {header: request.headers[header] for header in HEADERS} == HEADERS
        assert request.path == f"/trades.csv?{QUERY}"


def tokens(config: dict[str, Any]) -> dict[str, str]:
    """The encrypted token of each secret."""
    sealed = {**config["headers"], "query": config["query"]}
    return {name: value[SEALED] for name, value in sealed.items()}


async def test_a_mask_keeps_its_secret_over_rotations(desk: Desk) -> None:
    with receiver() as site:
        name = await register(desk, site)
        for _ in range(3):
            shown = (await desk.registry.read(name)).config
            assert shown["headers"] == dict.fromkeys(HEADERS, "***")
            await desk.update(name, config=shown)
            assert await rotate_in(desk) == SECRETS
        assert len(keys_of(desk)) == 2
        assert (await desk.fetch(name)).status == "SUCCESS"
        assert site.requests[0].headers["X-Desk"] == HEADERS["X-Desk"]


async def test_a_source_without_secrets_is_unchanged(desk: Desk) -> None:
    name = await desk.register("file", FILE)
    before = await desk.source(name)
    assert await rotate_in(desk) == 1
    after = await desk.source(name)
    assert (after.config, after.updated_at) == (FILE, before.updated_at)


async def test_an_unreadable_secret_of_a_source_leaves_the_channels_unchanged_too(desk: Desk) -> None:
    with receiver() as site:
        name = await register(desk, site)
    stranger = seal(
        {"url": "https://feeds.example.com", "query": SecretStr("x")}, Keyring([Fernet.generate_key().decode()])
    )
    source = await desk.source(name)
    async with desk.context.sessions.begin() as session:
        await session.execute(update(type(source)).where(type(source).id == source.id).values(config=stranger))
    before = await stored(desk)
    with pytest.raises(SecretUnreadable):
        await rotate_in(desk)
    assert await stored(desk) == before
    hook = unseal(before[0], Keyring.from_settings(desk.context.settings))
    assert hook == {"url": "https://hooks.example.com/s3cr3t"}


async def test_every_column_with_secrets_is_rotated(desk: Desk) -> None:
    with receiver() as site:
        name = await register(desk, site)
        await desk.fetch(name)
    known = {(column.class_.__tablename__, column.key) for column in SEALED_COLUMNS}
    found = set()
    async with desk.context.sessions() as session:
        for table in Base.metadata.sorted_tables:
            for row in (await session.execute(select(table))).mappings():
                found |= {(table.name, key) for key, value in row.items() if SEALED in json.dumps(value, default=str)}
    assert found == known
