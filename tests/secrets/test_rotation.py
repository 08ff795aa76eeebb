"""Key rotation: on both databases, interrupted at any point, and beside concurrent writers."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from spine.administration import rotation
from spine.administration.rotation import rotate
from spine.database import make_engine, make_sessions
from spine.errors import Conflict
from spine.secrets.keyring import KEY_FILE, Keyring, SecretUnreadable, read_key_file, rotation_lock
from spine.secrets.sealed import reseal, seal, unseal
from spine.settings import Settings
from spine.tables import SEALED_COLUMNS
from spine.tables.alerts import AlertChannel
from sqlalchemy import URL, create_engine, delete, select, update
from sqlalchemy.exc import OperationalError

from tests.support.databases import migrate
from tests.support.processes import PROJECT

TREE = {"url": SecretStr("https://h/t0psecret"), "headers": {"X-A": SecretStr("1"), "X-B": SecretStr("2")}, "n": [1]}
PLAIN = {"url": "https://h/t0psecret", "headers": {"X-A": "1", "X-B": "2"}, "n": [1]}


def settings_in(home: Path, **fields: Any) -> Settings:
    return Settings.model_validate({"home": home, **fields})


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A database with all tables."""
    if request.param == "sqlite":
        settings = settings_in(tmp_path)
        migrate(settings.sqlalchemy_url)
        yield settings
        return
    with request.getfixturevalue("postgresql_databases").lend() as url:
        settings = settings_in(tmp_path, database_url=url)
        migrate(settings.sqlalchemy_url)
        yield settings


async def store_two_channels(settings: Settings) -> None:
    keyring = Keyring.from_settings(settings)
    engine = make_engine(settings.sqlalchemy_url)
    async with make_sessions(engine).begin() as session:
        await session.execute(delete(AlertChannel))
        for name in ("a", "b"):
            fields = {"channel_type": "webhook", "min_severity": "ERROR", "enabled": True, "throttle_minutes": 5}
            session.add(AlertChannel(name=name, config=seal(TREE, keyring), recipients=[None], **fields))
    await engine.dispose()


async def stored_configs(url: URL) -> list[Any]:
    engine = make_engine(url)
    async with make_sessions(engine)() as session:
        found = list(await session.scalars(select(AlertChannel.config).order_by(AlertChannel.name)))
    await engine.dispose()
    return found


async def rotate_in(settings: Settings) -> int:
    engine = make_engine(settings.sqlalchemy_url)
    try:
        return await rotate(make_sessions(engine), settings, SEALED_COLUMNS)
    finally:
        await engine.dispose()


def environment_of(settings: Settings) -> dict[str, str]:
    url = settings.database_url
    return {
        "PATH": os.defpath,
        "SPINE_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.home / "prefect"),
        **({"SPINE_DATABASE_URL": url.get_secret_value()} if url else {}),
    }


async def test_a_rotation_encrypts_every_secret_again(database: Settings) -> None:
    await store_two_channels(database)
    running = Keyring.from_settings(database)
    before = await stored_configs(database.sqlalchemy_url)
    path = database.home / KEY_FILE
    [first] = read_key_file(path)
    assert await rotate_in(database) == 6
    after = await stored_configs(database.sqlalchemy_url)
    assert all(one["url"] != other["url"] for one, other in zip(before, after, strict=True))
    newest, previous = read_key_file(path)
    assert previous == first
    assert [unseal(one, Keyring([newest])) for one in after] == [PLAIN] * 2
    assert [unseal(one, running) for one in (*before, *after)] == [PLAIN] * 4
    assert await rotate_in(database) == 6
    assert read_key_file(path)[1:] == [newest]


# The command, which dies at the n-th call of a function of the rotation.
DYING = """
import os, sys
from spine.cli import app
from spine.administration import rotation
name, last = sys.argv[1], int(sys.argv[2])
real, calls = getattr(rotation, name), []
def call(*arguments):
    calls.append(arguments)
    if len(calls) == last:
        os._exit(9)
    return real(*arguments)
setattr(rotation, name, call)
app(["keys", "rotate-secret"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "died_at",
    [("replace_key_file", 1), ("reseal", 1), ("reseal", 2), ("replace_key_file", 2)],
    ids=["before the new key", "before the first row", "between two rows", "after the commit"],
)
async def test_a_rotation_may_be_killed_at_any_point(database: Settings, died_at: tuple[str, int]) -> None:
    await store_two_channels(database)
    running = Keyring.from_settings(database)
    command = [sys.executable, "-c", DYING, died_at[0], str(died_at[1])]
    # Twice, as an impatient operator would.
    for _ in range(2):
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=PROJECT,
            env=environment_of(database),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 9, done.stderr
        for keyring in (running, Keyring.from_settings(database)):
            stored = await stored_configs(database.sqlalchemy_url)
            assert [unseal(one, keyring) for one in stored] == [PLAIN] * 2
    assert await rotate_in(database) == 6
    keys = read_key_file(database.home / KEY_FILE)
    assert len(keys) == 2
    after = await stored_configs(database.sqlalchemy_url)
    assert [unseal(one, Keyring(keys[:1])) for one in after] == [PLAIN] * 2


async def test_one_unreadable_secret_leaves_all_secrets_unchanged(database: Settings) -> None:
    await store_two_channels(database)
    stranger = seal(TREE, Keyring([Fernet.generate_key().decode()]))
    engine = make_engine(database.sqlalchemy_url)
    async with make_sessions(engine).begin() as session:
        await session.execute(update(AlertChannel).where(AlertChannel.name == "b").values(config=stranger))
    await engine.dispose()
    before = await stored_configs(database.sqlalchemy_url)
    with pytest.raises(SecretUnreadable):
        await rotate_in(database)
    assert await stored_configs(database.sqlalchemy_url) == before
    assert unseal(before[0], Keyring.from_settings(database)) == PLAIN


async def test_no_row_changes_between_its_reading_and_writing(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_two_channels(database)
    url = database.sqlalchemy_url
    if url.get_backend_name() == "sqlite":
        other = create_engine(url.set(drivername="sqlite"), connect_args={"timeout": 0.2})
    else:
        other = create_engine(url, connect_args={"options": "-c lock_timeout=200"})
    refused = []

    def reseal_while_another_writes(tree: Any, keyring: Keyring) -> Any:
        with pytest.raises(OperationalError), other.begin() as connection:
            connection.execute(update(AlertChannel).values(config={"new": True}))
        refused.append(tree)
        return reseal(tree, keyring)

    monkeypatch.setattr(rotation, "reseal", reseal_while_another_writes)
    assert await rotate_in(database) == 6
    assert len(refused) == 2
    with other.begin() as connection:
        connection.execute(update(AlertChannel).values(config={"new": True}))
    other.dispose()


async def test_concurrent_rotations_do_not_overwrite_each_others_keys(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    migrate(settings.sqlalchemy_url)
    await store_two_channels(settings)
    path = tmp_path / KEY_FILE
    before = path.read_text()
    with rotation_lock(path), pytest.raises(Conflict):
        await rotate_in(settings)
    assert path.read_text() == before
    assert await rotate_in(settings) == 6


async def test_the_setting_rotates_to_its_first_key(database: Settings) -> None:
    await store_two_channels(database)
    path = database.home / KEY_FILE
    new, [old] = Fernet.generate_key().decode(), read_key_file(path)
    fields = database.model_dump(include={"home", "database_url"}, exclude_none=True)
    assert await rotate_in(Settings.model_validate({**fields, "secret_key": f"{new},{old}"})) == 6
    after = await stored_configs(database.sqlalchemy_url)
    assert [unseal(one, Keyring([new])) for one in after] == [PLAIN] * 2
    assert read_key_file(path) == [old]
    with pytest.raises(Conflict, match="a new key and the current one"):
        await rotate_in(Settings.model_validate({**fields, "secret_key": new}))


def test_the_command_reports_its_result(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spine.cli", "keys", "rotate-secret"]
    settings = settings_in(tmp_path)
    migrate(settings.sqlalchemy_url)
    environment = environment_of(settings)
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0 secrets are encrypted with the new key.\n"), done.stderr
    environment["SPINE_SECRET_KEY"] = "s3cret-that-is-no-key"
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The settings are invalid" in done.stderr
    assert "s3cret" not in done.stderr
