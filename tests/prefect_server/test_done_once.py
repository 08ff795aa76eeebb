"""What Prefect's server does once instead of for each run: checks of schemas, and the statements that store events."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiosqlite
import pytest
from prefect.server.database import PrefectDBInterface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.orm_models import AioSqliteORMConfiguration
from prefect.server.database.query_components import AioSqliteQueryComponents
from prefect.server.events.schemas.events import ReceivedEvent, RelatedResource, Resource
from prefect.server.events.storage import database
from prefect.types._datetime import now
from prefect.utilities.schema_tools import validation
from spine.prefect_server.event_writes import install_event_writes
from spine.prefect_server.schema_checks import install_schema_checks
from spine.prefect_server.sqlite_waits import install_sqlite_waits
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The schemas that were checked against the schema of schemas, with the memory installed."""
    found: list[Any] = []
    check = validation._VALIDATOR.check_schema

    def noting(schema: Any, format_checker: Any = None) -> None:
        found.append(schema)
        check(schema) if format_checker is None else check(schema, format_checker)

    monkeypatch.setattr(validation._VALIDATOR, "check_schema", noting)
    assert install_schema_checks() == []
    return found


def test_a_schema_is_checked_once_and_values_each_time(checked: list[Any]) -> None:
    for number in range(3):
        validation.validate({"number": number}, SCHEMA, raise_on_error=True)
        with pytest.raises(validation.ValidationError, match="number"):
            validation.validate({"number": "three"}, SCHEMA, raise_on_error=True)
    assert len(checked) == 1


def test_a_schema_that_has_changed_is_checked_again(checked: list[Any]) -> None:
    validation.is_valid_schema(SCHEMA, preprocess=False)
    changed = {**SCHEMA, "properties": {"number": {"type": "no type"}}}
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid schema"):
            validation.is_valid_schema(changed, preprocess=False)
    assert len(checked) == 3


def test_without_the_function_for_schemas_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(validation, "_VALIDATOR")
    assert install_schema_checks() == ["_VALIDATOR.check_schema"]


@pytest.fixture
async def prefect_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PrefectDBInterface]:
    """Prefect's tables of events in a SQLite database, with the writes and the waits of Spine's server."""
    monkeypatch.setattr(aiosqlite.Connection, "_execute", aiosqlite.Connection._execute)
    for name in ("setup_sqlite", "begin_transaction"):
        monkeypatch.setattr(AioSqliteConfiguration, name, getattr(AioSqliteConfiguration, name))
    assert install_sqlite_waits() == []
    monkeypatch.setattr(database, "_write_sqlite_events", database._write_sqlite_events)
    assert install_event_writes() == []
    url = f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"
    db = PrefectDBInterface(
        database_config=AioSqliteConfiguration(url),
        query_components=AioSqliteQueryComponents(),
        orm=AioSqliteORMConfiguration(),
    )
    engine = await db.engine()
    async with engine.begin() as connection:
        # Not all of Prefect's tables can be created without its migrations.
        tables = [db.Base.metadata.tables[name] for name in ("events", "event_resources")]
        await connection.run_sync(db.Base.metadata.create_all, tables=tables)
    yield db
    await engine.dispose()


def events(count: int) -> list[ReceivedEvent]:
    """Events with a different number of related resources each."""
    return [
        ReceivedEvent(
            id=uuid4(),
            event="prefect.task-run.Completed",
            occurred=now("UTC"),
            resource=Resource({"prefect.resource.id": f"prefect.task-run.{number}"}),
            related=[
                RelatedResource({"prefect.resource.id": f"prefect.tag.{one}", "prefect.resource.role": "tag"})
                for one in range(number % 4)
            ],
            payload={"number": number, "text": "ä\u2028"},
        )
        for number in range(count)
    ]


async def write(db: PrefectDBInterface, batch: list[ReceivedEvent]) -> None:
    """Store a batch, as Prefect does."""
    async with db.session_context() as session:
        await database.write_events(session, batch)
        await session.commit()


async def test_events_are_stored_once_with_all_their_resources(prefect_tables: PrefectDBInterface) -> None:
    db, stored = prefect_tables, events(50)
    for batch in (stored[:20], stored[10:]):
        await write(db, batch)
    async with db.session_context() as session:
        rows = (await session.execute(text("SELECT id, payload FROM events"))).all()
        resources = (await session.execute(text("SELECT event_id, resource_id FROM event_resources"))).all()
    assert sorted((row.id, json.loads(row.payload)["number"]) for row in rows) == sorted(
        (str(one.id), one.payload["number"]) for one in stored
    )
    assert sorted(resources) == sorted(
        (str(one.id), resource.id) for one in stored for resource in (one.resource, *one.related)
    )


async def test_events_wait_for_the_transactions_of_others(prefect_tables: PrefectDBInterface) -> None:
    db, batches = prefect_tables, [events(5) for _ in range(4)]

    async def hold() -> None:
        async with db.session_context(begin_transaction=True) as session:
            await session.execute(text("DELETE FROM events WHERE id = 'none'"))
            await asyncio.sleep(0.3)

    await asyncio.gather(hold(), *(write(db, batch) for batch in batches), hold())
    async with db.session_context() as session:
        assert (await session.execute(text("SELECT count(*) FROM events"))).scalar_one() == 20


async def test_a_batch_that_cannot_be_stored_leaves_nothing(prefect_tables: PrefectDBInterface) -> None:
    db = prefect_tables
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(text("DROP TABLE event_resources"))
    with pytest.raises(OperationalError):
        await write(db, events(5))
    async with db.session_context() as session:
        assert (await session.execute(text("SELECT count(*) FROM events"))).scalar_one() == 0


async def test_what_is_compiled_does_not_grow_with_the_batch(prefect_tables: PrefectDBInterface) -> None:
    db = prefect_tables
    engine, inserts = await db.engine(), set[str]()

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool) -> None:
        if statement.startswith("INSERT"):
            inserts.add(context.compiled.string)

    sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", note)
    for size in (3, 7, 12):
        await write(db, events(size))
    assert len(inserts) == 2


def test_without_the_functions_for_events_their_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(database, "_write_postgres_events")
    assert install_event_writes() == ["_write_postgres_events"]
