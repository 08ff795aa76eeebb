"""A process whose secret key is not that of its database neither encrypts nor decrypts, and says so."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from spine.administration.rotation import rotate
from spine.cli import app as command_line
from spine.database import SessionFactory, make_engine, make_sessions
from spine.secrets.key_check import KeyMismatch, adopt_key, require_own_key
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import seal
from spine.settings import Settings
from spine.tables import SEALED_COLUMNS
from spine.tables.alerts import AlertChannel
from typer.testing import CliRunner

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.support.api_here import api_here
from tests.support.databases import migrate
from tests.support.postgres import fresh_database
from tests.support.processes import wait_until
from tests.support.receivers import receiver
from tests.support.stack import Api, PrefectStack
from tests.support.web import WEB

WRONG = "SPINE_SECRET_KEY"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A database with all tables."""
    if request.param == "sqlite":
        yield _migrated(home=tmp_path)
        return
    with request.getfixturevalue("postgresql_databases").lend() as url:
        yield _migrated(home=tmp_path, database_url=url)


def _migrated(**fields: Any) -> Settings:
    settings = Settings.model_validate(fields)
    migrate(settings.sqlalchemy_url)
    return settings


@asynccontextmanager
async def sessions_of(settings: Settings) -> AsyncIterator[SessionFactory]:
    engine = make_engine(settings.sqlalchemy_url)
    yield make_sessions(engine)
    await engine.dispose()


def new_keyring() -> Keyring:
    return Keyring([Fernet.generate_key().decode()])


async def test_of_processes_that_claim_with_different_keys_at_once_one_wins(settings: Settings) -> None:
    keyrings = [new_keyring() for _ in range(5)]
    async with sessions_of(settings) as sessions:
        claims = [require_own_key(sessions, keyring) for keyring in keyrings]
        found = await asyncio.gather(*claims, return_exceptions=True)
        assert sorted(type(one).__name__ for one in found) == [*["KeyMismatch"] * 4, "NoneType"]
        (winner,) = [keyring for keyring, one in zip(keyrings, found, strict=True) if one is None]
        await require_own_key(sessions, winner)


async def test_a_database_that_is_older_than_the_check_takes_only_a_key_that_reads_its_secrets(
    settings: Settings,
) -> None:
    keyring = new_keyring()
    fields = {"channel_type": "webhook", "min_severity": "ERROR", "enabled": True, "throttle_minutes": 5}
    async with sessions_of(settings) as sessions:
        async with sessions.begin() as session:
            # A secret whose key was lost before.
            for name, key in (("lost", new_keyring()), ("kept", keyring)):
                sealed = seal({"url": SecretStr("https://h/x")}, key)
                session.add(AlertChannel(name=name, config=sealed, recipients=[None], **fields))
        with pytest.raises(KeyMismatch, match=WRONG):
            await require_own_key(sessions, new_keyring())
        await require_own_key(sessions, keyring)


async def test_a_rotation_is_refused_with_another_key_and_makes_the_new_key_that_of_the_database(
    settings: Settings,
) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    async with sessions_of(settings) as sessions:
        await require_own_key(sessions, Keyring([old]))
        stranger = settings.model_copy(update={"secret_key": SecretStr(f"{new},{Fernet.generate_key().decode()}")})
        with pytest.raises(KeyMismatch):
            await rotate(sessions, stranger, SEALED_COLUMNS)
        await rotate(sessions, settings.model_copy(update={"secret_key": SecretStr(f"{new},{old}")}), SEALED_COLUMNS)
        await require_own_key(sessions, Keyring([new]))
        with pytest.raises(KeyMismatch):
            await require_own_key(sessions, Keyring([old]))


async def test_a_key_is_adopted_after_the_other_was_lost(settings: Settings) -> None:
    lost, found = new_keyring(), new_keyring()
    async with sessions_of(settings) as sessions:
        await require_own_key(sessions, lost)
        await adopt_key(sessions, found)
        await require_own_key(sessions, found)
        with pytest.raises(KeyMismatch):
            await require_own_key(sessions, lost)


@pytest.mark.slow
def test_a_process_with_another_key_and_cache_is_not_ready_and_uses_up_no_delivery(
    stack: PrefectStack, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database(postgresql_url) as database, receiver() as desk:
        silent = {**FAST_RETRIES, "SPINE_SEND_ALERTS": "false", "SPINE_CACHE_URL": str(tmp_path / "cache")}
        other = {**FAST_RETRIES, WRONG: Fernet.generate_key().decode()}
        with ExitStack() as apis:
            api = apis.enter_context(api_here(stack.url, stack.home, tmp_path / "first", database, **silent))
            # The database belongs to the key and the cache that claim it first.
            wait_until(lambda: states(api) == ("up", "up"), "the first API to claim the database", 60)
            stranger = apis.enter_context(api_here(stack.url, stack.home, tmp_path / "second", database, **other))
            alerts = Alerts(api)
            alerts.channel(desk, config={"url": desk.url, "headers": {"X-Key": "s3cret"}})
            alert = alerts.alert()
            answer = WEB.get(f"{stranger.url}/health/ready")
            assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
            for part, setting in (("secrets", WRONG), ("cache", "SPINE_CACHE_URL")):
                assert answer.json()[part]["state"] == "down"
                assert setting in answer.json()[part]["detail"]
            refused = Alerts(stranger).client.post("/alerts/channels", json=webhook(desk.url))
            assert refused.status_code == 503
            assert WRONG in refused.json()["detail"]
            refused = stranger.client.delete("/sources/cache")
            assert refused.status_code == 503
            assert "SPINE_CACHE_URL" in refused.json()["detail"]
            (delivery,) = alerts.read(alert)["deliveries"]
            assert (delivery["status"], delivery["attempt"]) == ("PENDING", 0)
        for name, value in {"SPINE_HOME": str(tmp_path / "second"), "SPINE_DATABASE_URL": database, **other}.items():
            monkeypatch.setenv(name, value)
        for command in ("adopt-key", "adopt-cache"):
            assert CliRunner().invoke(command_line, ["db", command]).exit_code == 0
        with api_here(stack.url, stack.home, tmp_path / "second", database, **other) as api:
            assert states(api) == ("up", "up")


def states(api: Api) -> tuple[str, str]:
    """The states of the secret key and of the cache."""
    ready = WEB.get(f"{api.url}/health/ready").json()
    return ready["secrets"]["state"], ready["cache"]["state"]


def webhook(url: str) -> dict[str, Any]:
    return {"name": "other", "channel_type": "webhook", "config": {"url": url, "headers": {"X-Key": "s3cret"}}}
