"""Good rows of every table, and for each column rows with values in it that cannot be read."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from spine.auth.service import hash_key
from spine.tables import Base
from spine.tables.base import FreeFormJson, StoredJson
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    String,
    Table,
    Uuid,
    insert,
    literal_column,
    text,
    update,
)

NOW = datetime.now(UTC)
# The words that a column with a closed set of words has in a good row.
WORDS = {
    "channel_type": "webhook",
    "min_severity": "CRITICAL",
    "severity": "ERROR",
    "error_category": "SOURCE",
    "source_type": "http",
    "parser_type": "csv",
    "last_fetch_status": "SUCCESS",
    "trigger": "API",
    "db_type": "postgresql",
    "ssl_mode": "disable",
    "health_status": "UNKNOWN",
    "outcome": "FAILED",
    "actor_kind": "KEY",
    ("audit_entries", "outcome"): "DONE",
    ("fetches", "status"): "PENDING",
    ("alert_deliveries", "status"): "PENDING",
    ("alert_deliveries", "event"): "ACKNOWLEDGE",
}


def poisons(column: Column[Any], is_sqlite: bool) -> list[str]:
    """What the column can hold that is nothing of its type, as SQL. PostgreSQL checks more types than SQLite."""
    found: list[str] = []
    kind = column.type
    if isinstance(kind, StoredJson | FreeFormJson):
        found += ["'5'", "'[{}, 5]'", "'{\"a\": 5}'" if getattr(kind, "form", dict) is list else "'[]'"]
        if column.name == "config":
            found += ["""'{"url": {"$sealed": "no-token"}}'""", """'{"url": {"$sealed": 5}}'"""]
    if isinstance(kind, String) and word_of(column):
        found.append("'STRANGE'")
    if not is_sqlite:
        return [*found, *(["'infinity'"] if isinstance(getattr(kind, "impl", kind), DateTime) else [])]
    if isinstance(kind, StoredJson | FreeFormJson):
        return [*found, "'[broken'", "x'ff'"]
    by_type = {
        DateTime: ["'yesterday'", "x'ff'"],
        Uuid: ["'no-uuid'", "5"],
        Integer: ["'many'", "1.5"],
        Boolean: ["'maybe'", "7"],
        LargeBinary: ["'text'", "5"],
        String: ["CAST(x'ff41' AS TEXT)", "x'ff41'"],
    }
    own = getattr(kind, "impl", kind)
    return found + next(sql for type_, sql in by_type.items() if isinstance(own, type_))


def word_of(column: Column[Any]) -> str | None:
    return WORDS.get((column.table.name, column.name)) or WORDS.get(column.name)


def good_value(column: Column[Any], known: dict[str, Any]) -> Any:
    kind = getattr(column.type, "impl", column.type)
    for reference in column.foreign_keys:
        return known[reference.column.table.name][reference.column.name]
    if column.name in ("alert_id", "channel_id"):
        return known["alerts" if column.name == "alert_id" else "alert_channels"]["id"]
    if (word := word_of(column)) is not None:
        return word
    if column.nullable:
        return None
    if isinstance(column.type, StoredJson):
        return {"url": "http://127.0.0.1:9/"} if column.type.form is dict else []
    by_type = {DateTime: NOW, Uuid: uuid4(), Integer: 1, Boolean: True, LargeBinary: b"{}"}
    for type_, value in by_type.items():
        if isinstance(kind, type_):
            return value
    length = column.type.length or 64 if isinstance(column.type, String) else 64
    return uuid4().hex.upper()[: min(length, 26)]


@dataclass
class Rows:
    """What was stored: a good row of each table, and the ids of its odd ones by what is odd."""

    good: dict[str, Any] = field(default_factory=dict)
    odd: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def insert_good(connection: Connection, table: Table, rows: Rows) -> dict[str, Any]:
    values = {column.name: good_value(column, rows.good) for column in table.columns}
    if table.name == "api_keys":
        rows.keys.append(uuid4().hex)
        values |= {"key_hash": hash_key(rows.keys[-1]), "scopes": ["read"], "revoked_at": None}
    if table.name == "follower_cursors":
        values["name"] = f"cursor-{uuid4().hex}"
    if table.name == "alert_deliveries":
        values["due_at"] = NOW
    connection.execute(insert(table), [values])
    return values


def store_odd_rows(connection: Connection, is_sqlite: bool) -> Rows:
    """One good row of each table, and one for each column and each poison of it."""
    rows = Rows()
    for table in Base.metadata.sorted_tables:
        rows.good[table.name] = insert_good(connection, table, rows)
        rows.odd[table.name] = {}
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            for poison in poisons(column, is_sqlite):
                values = insert_good(connection, table, rows)
                mine = [one == values[one.name] for one in table.primary_key]
                connection.execute(update(table).where(*mine).values({column: literal_column(poison)}))
                if not column.primary_key:
                    rows.odd[table.name][f"{column.name} = {poison}"] = str(values.get("id"))
    broken = "x'ff'" if is_sqlite else "'infinity'"
    of_cursor = f"UPDATE follower_cursors SET leader = 'x', leads_until = {broken}, read_until = {broken}"  # noqa: S608
    connection.execute(text(f"{of_cursor} WHERE name = 'runs'"))
    return rows
