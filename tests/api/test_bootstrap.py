"""The admin key that `spine up` makes."""

import asyncio
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from spine.auth.bootstrap import ADMIN, activating_admin_key, ensure_admin_key
from spine.auth.callers import Caller, Scope
from spine.auth.service import revoke_key
from spine.database import make_engine, make_sessions
from spine.errors import DatabaseUnavailable, Unauthorized
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.tables.api_keys import ApiKey
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tests.run_history.support import until
from tests.support.keys import check_key
from tests.support.postgres import fresh_database
from tests.support.processes import free_port
from tests.support.variants import one_by_default


@pytest.fixture
def fresh_postgresql(postgresql_url: str) -> Iterator[str]:
    with fresh_database(postgresql_url) as database:
        yield database


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a migrated database without any key."""
    database = SecretStr(request.getfixturevalue("fresh_postgresql")) if request.param == "postgresql" else None
    settings = Settings(home=tmp_path, database_url=database)
    upgrade(settings.sqlalchemy_url)
    return settings


def with_key(settings: Settings, key: str) -> Settings:
    return settings.model_copy(update={"api_key": SecretStr(key)})


@asynccontextmanager
async def session_on(settings: Settings) -> AsyncIterator[AsyncSession]:
    engine = make_engine(settings.sqlalchemy_url)
    try:
        async with make_sessions(engine).begin() as session:
            yield session
    finally:
        await engine.dispose()


def caller_of(settings: Settings, key: str) -> Caller | None:
    """The caller that the API finds for the key; None for a key that it rejects."""

    async def check() -> Caller | None:
        async with session_on(settings) as session:
            try:
                return await check_key(session, key)
            except Unauthorized:
                return None

    return asyncio.run(check())


def revoke(settings: Settings, name: str) -> None:
    async def run() -> None:
        async with session_on(settings) as session:
            await revoke_key(session, name)

    asyncio.run(run())


def count_keys(settings: Settings) -> int:
    async def run() -> int:
        async with session_on(settings) as session:
            return len((await session.scalars(select(ApiKey))).all())

    return asyncio.run(run())


def test_the_first_start_makes_an_admin_key_that_only_the_owner_can_read(settings: Settings) -> None:
    made = ensure_admin_key(settings)
    assert made.path == settings.home / "api-key"
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert made.secret_to_show == made.path.read_text().strip()
    caller = caller_of(settings, made.secret_to_show)
    assert caller is not None
    assert (caller.name, set(caller.scopes)) == (ADMIN, {Scope.ADMIN})
    assert sorted(file.name for file in settings.home.glob("api-key*")) == ["api-key"]


def test_the_next_start_keeps_the_key_and_does_not_show_it_again(settings: Settings) -> None:
    first = ensure_admin_key(settings)
    second = ensure_admin_key(settings)
    assert first.secret_to_show is not None
    assert second.secret_to_show is None
    assert second.path is not None
    assert second.path.read_text().strip() == first.secret_to_show
    assert caller_of(settings, first.secret_to_show) is not None
    assert count_keys(settings) == 1


def test_a_key_that_an_operator_revoked_stays_revoked(settings: Settings) -> None:
    secret = ensure_admin_key(settings).secret_to_show
    assert secret is not None
    revoke(settings, ADMIN)
    again = ensure_admin_key(settings)
    assert again.secret_to_show is None
    assert "revoked" in again.note
    assert caller_of(settings, secret) is None


def test_the_key_of_the_environment_replaces_the_generated_one(settings: Settings) -> None:
    generated = ensure_admin_key(settings).secret_to_show
    assert generated is not None
    given = ensure_admin_key(with_key(settings, "chosen-by-the-operator"))
    assert (given.path, given.secret_to_show) == (None, None)
    caller = caller_of(settings, "chosen-by-the-operator")
    assert caller is not None
    assert caller.scopes == {Scope.ADMIN}
    assert caller_of(settings, generated) is None


def test_another_key_in_the_environment_replaces_the_previous_one(settings: Settings) -> None:
    ensure_admin_key(with_key(settings, "monday"))
    ensure_admin_key(with_key(settings, "tuesday"))
    assert caller_of(settings, "monday") is None
    assert caller_of(settings, "tuesday") is not None
    ensure_admin_key(with_key(settings, "tuesday"))
    assert count_keys(settings) == 2


def test_a_revoked_key_of_the_environment_stays_revoked_and_is_reported(settings: Settings) -> None:
    ensure_admin_key(with_key(settings, "leaked"))
    revoke(settings, ADMIN)
    again = ensure_admin_key(with_key(settings, "leaked"))
    assert caller_of(settings, "leaked") is None
    assert "revoked" in again.note


def test_an_empty_key_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPINE_API_KEY", "")
    assert Settings(home=tmp_path).api_key is None
    monkeypatch.setenv("SPINE_API_KEY", "short")
    with pytest.raises(ValidationError, match="16"):
        Settings(home=tmp_path)


def test_a_database_that_is_down_is_reported(tmp_path: Path) -> None:
    down = Settings(home=tmp_path, database_url=SecretStr(f"postgresql://nobody@127.0.0.1:{free_port()}/spine"))
    with pytest.raises(DatabaseUnavailable, match="out of reach"):
        ensure_admin_key(down)


async def test_each_api_process_activates_the_key_of_the_environment_in_the_background(settings: Settings) -> None:
    given = with_key(settings, "chosen-by-the-operator")
    engine = make_engine(settings.sqlalchemy_url)
    sessions = make_sessions(engine)

    async def works() -> bool:
        async with sessions() as session:
            try:
                return bool(await check_key(session, "chosen-by-the-operator"))
            except Unauthorized:
                return False

    # Several at once, as replicas start.
    async with AsyncExitStack() as starting:
        for _ in range(5):
            await starting.enter_async_context(activating_admin_key(sessions, given))
        await until(works, "the key to work", 20)
    await engine.dispose()
