"""Keys that expire, that are limited to domains, and whose last use is shown."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from spine.auth.callers import Scope
from spine.auth.domains import MOST_PATTERNS, Domains, parse_patterns
from spine.auth.key_uses import KeyUses
from spine.auth.presenting import parse_expiry
from spine.auth.service import create_key
from spine.database import SessionFactory, make_engine, make_sessions
from spine.errors import BadRequest, Unauthorized
from spine.settings import Settings
from spine.tables.alerts import Alert
from spine.tables.api_keys import ApiKey
from spine.tables.base import new_id, utc_now
from sqlalchemy import event, select, update

from tests.api.test_auth import invoke, make_key
from tests.support.api_here import api_here
from tests.support.databases import migrate
from tests.support.keys import check_key
from tests.support.processes import free_port
from tests.support.stack import Api
from tests.support.variants import one_by_default


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A migrated database."""
    if request.param == "sqlite":
        made = Settings(home=tmp_path)
        migrate(made.sqlalchemy_url)
        yield made
    else:
        with request.getfixturevalue("postgresql_databases").lend() as url:
            yield Settings.model_validate({"home": tmp_path, "database_url": url})


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[SessionFactory]:
    engine = make_engine(settings.sqlalchemy_url)
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without Prefect."""
    folder = tmp_path_factory.mktemp("keys")
    with api_here(f"http://127.0.0.1:{free_port()}/api", folder, folder / "home") as started:
        yield started


async def test_a_key_is_refused_from_its_expiry_on(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        row, key = await create_key(session, "short", [Scope.READ], expires_at=utc_now() + timedelta(hours=1))
        assert (await check_key(session, key)).name == "short"
        row.expires_at = utc_now() - timedelta(seconds=1)
        await session.flush()
        with pytest.raises(Unauthorized, match="expired at"):
            await check_key(session, key)
        row.expires_at = None
        await session.flush()
        assert (await check_key(session, key)).name == "short"


async def test_the_domains_of_a_key_come_with_its_caller(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        _, key = await create_key(session, "desk", [Scope.WRITE], ["finra.*", "sec"])
        assert (await check_key(session, key)).domains == Domains(("finra.*", "sec"))
        _, key = await create_key(session, "whole", [Scope.WRITE])
        assert (await check_key(session, key)).domains == Domains()
        with pytest.raises(BadRequest, match="admin key"):
            await create_key(session, "admin-desk", [Scope.ADMIN], ["finra.*"])


async def test_uses_are_written_together_and_not_for_each_request(settings: Settings) -> None:
    engine = make_engine(settings.sqlalchemy_url)
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    sessions = make_sessions(engine)
    async with sessions.begin() as session:
        rows = [(await create_key(session, f"key-{number}", [Scope.READ]))[0] for number in range(3)]
    uses = KeyUses(sessions)
    statements.clear()
    async with uses.running():
        for _ in range(1000):
            for row in rows[:2]:
                uses.record(row.id)
        await asyncio.sleep(0)
        assert statements == []
    assert sum(statement.startswith("UPDATE") for statement in statements) == 2
    async with sessions() as session:
        used = {row.name: row.last_used_at for row in await session.scalars(select(ApiKey))}
    assert used["key-2"] is None
    assert all(abs((used[name] or datetime.min) - utc_now()) < timedelta(minutes=1) for name in ("key-0", "key-1"))
    await engine.dispose()


async def test_an_earlier_use_in_another_process_does_not_replace_a_later_one(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        row, _ = await create_key(session, "both", [Scope.READ])
        later = utc_now() + timedelta(minutes=5)
        await session.execute(update(ApiKey).values(last_used_at=later))
    uses = KeyUses(sessions)
    uses.record(row.id)
    await uses.write()
    async with sessions() as session:
        assert await session.scalar(select(ApiKey.last_used_at)) == later


def test_the_list_shows_domains_expiry_and_last_use(lonely: Api) -> None:
    key = make_key(lonely, "limited", "write", domains=["finra.*", "sec"], expires="90d")
    lonely.as_key(key).get("/sources")
    # The running API writes it within half a minute; this is what it writes.
    asyncio.run(_write_use(lonely, key))
    shown = invoke(lonely, "keys", "list").stdout
    (line,) = [line for line in shown.splitlines() if " limited " in line]
    assert "finra.*,sec" in line
    assert f"{utc_now() + timedelta(days=90):%Y-%m-%d}" in line
    assert line.count(f"{utc_now():%Y-%m-%d}") == 2
    assert line.endswith("active")


async def _write_use(api: Api, key: str) -> None:
    engine = make_engine(api.settings.sqlalchemy_url)
    sessions = make_sessions(engine)
    async with sessions() as session:
        uses = KeyUses(sessions)
        uses.record((await check_key(session, key)).id)
    await uses.write()
    await engine.dispose()


def test_an_expiry_is_set_and_removed_by_name(lonely: Api) -> None:
    make_key(lonely, "renewed", "read")
    assert "2099-01-31 18:00 UTC" in invoke(lonely, "keys", "expire", "renewed", "2099-01-31T18:00").stdout
    assert "never expires" in invoke(lonely, "keys", "expire", "renewed", "never").stdout
    for arguments in (["renewed", "2020-01-01"], ["renewed", "soon"], ["nobody", "1d"]):
        refused = invoke(lonely, "keys", "expire", *arguments)
        assert refused.exit_code == 1


def test_a_key_with_an_invalid_domain_is_not_made(lonely: Api) -> None:
    for pattern in ("", "finra.?", "[f]inra", "fin ra", "x" * 256, "finra\n"):
        refused = invoke(lonely, "keys", "create", "bad", "--domain", pattern)
        assert refused.exit_code == 1, pattern


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("90d", 2160), ("2w", 336), ("30m", 0.5)], ids=lambda value: str(value)
)
def test_an_expiry_counts_from_now(text: str, hours: float) -> None:
    found = parse_expiry(text)
    assert found is not None
    assert abs(found - utc_now() - timedelta(hours=hours)) < timedelta(seconds=5)


def test_an_expiry_may_be_a_date_or_a_time_of_any_zone() -> None:
    assert parse_expiry("2099-01-31") == datetime(2099, 1, 31, tzinfo=UTC)
    assert parse_expiry("2099-01-31T18:00+05:30") == datetime(2099, 1, 31, 12, 30, tzinfo=UTC)
    assert parse_expiry(None) is parse_expiry("never") is None
    for wrong in ("0d", "-1d", "9999999d", "999999w", "0001-01-01T00:00+14:00", "tomorrow", ""):
        with pytest.raises(BadRequest):
            parse_expiry(wrong)


DOMAINS = [
    "finra",
    "finra.otc",
    "FINRA.otc",
    "finra%otc",
    "finra_otc",
    "finraxotc",
    "finra\\otc",
    "sec",
    "a.b*c",
    "é.x",
]
PATTERNS = [["finra.*"], ["finra_*"], ["finra%*"], ["*"], ["*.otc"], ["finra"], ["finra\\*"], ["a.b*c"], ["é*"]]
PATTERNS += [["f*a*c"], ["FINRA*"], ["sec", "finra"], []]


@pytest.mark.parametrize("patterns", PATTERNS, ids=str)
async def test_sql_and_python_agree_about_patterns(sessions: SessionFactory, patterns: list[str]) -> None:
    domains = Domains(tuple(patterns))
    async with sessions.begin() as session:
        for domain in [*DOMAINS, None]:
            alert: dict[str, Any] = {"severity": "INFO", "title": "a", "message": "a", "source": "a"}
            session.add(Alert(id=new_id(), created_at=utc_now(), domain=domain, **alert))
        await session.flush()
        found = await session.scalars(select(Alert.domain).where(*domains.conditions(Alert.domain)))
        assert sorted(map(str, found)) == sorted(domain for domain in DOMAINS if domains.allow(domain))
    assert not domains.allow(None)


@pytest.mark.parametrize(
    ("globs", "covered"),
    [
        (["finra.*"], True),
        (["finra.otc", "finra.x?"], True),
        (["finra.[ab]*"], True),
        (["finra.*", "sec"], False),
        (None, False),
        ([], False),
        (["*"], False),
        (["finra*"], False),
        (["finra?*"], False),
        (["[f]inra.*"], False),
        (["finra[.]*"], False),
        (["FINRA.*"], False),
    ],
    ids=str,
)
def test_globs_are_covered_only_if_all_that_they_match_is_allowed(globs: list[str] | None, covered: bool) -> None:
    assert Domains(("finra.*",)).cover(globs) is covered
    assert Domains().cover(globs)


def test_a_credential_has_at_most_a_hundred_patterns_each_once() -> None:
    assert parse_patterns(["a", "b", "a"]) == ("a", "b")
    with pytest.raises(BadRequest, match="at most"):
        parse_patterns([f"d{number}" for number in range(MOST_PATTERNS + 1)])
