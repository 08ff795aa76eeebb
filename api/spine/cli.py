"""The `spine` command.

Each command imports what it needs itself: `spine up` would wait for the modules of the others, and keep them.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from spine.actors import operator
from spine.administration.formats import ExportFormat
from spine.auth.callers import EXPIRY_HELP, Scope
from spine.doctor.command import doctor
from spine.errors import SpineError
from spine.own_settings import own_settings
from spine.private_files import NotPrivate, close_to_others
from spine.table_revisions import describe, require_tables
from spine.up.command import deploy, up

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from spine.database import SessionFactory

Answer = TypeVar("Answer")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="A control plane for Prefect pipelines.")
db = typer.Typer(no_args_is_help=True, help="Upgrade and check the tables in Spine's database.")
keys = typer.Typer(no_args_is_help=True, help="Create, list, expire and revoke API keys.")
audit = typer.Typer(no_args_is_help=True, help="Read the audit trail: who changed what.")
app.command("up")(up)
app.command("deploy")(deploy)
app.command("doctor")(doctor)
app.add_typer(db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")


@app.command("serve")
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    grace_seconds: Annotated[int, typer.Option(help="How long requests may take to end when it is stopped.")] = 10,
    drain_seconds: Annotated[
        int, typer.Option(min=0, help="How long it serves after SIGTERM, while /health/serving answers 503.")
    ] = 0,
) -> None:
    """Serve the API alone: no Prefect server, no worker, no migration of the database."""
    from spine.serve import serve_api

    serve_api(host, port, grace_seconds, drain_seconds)


@db.command("upgrade")
def upgrade_tables() -> None:
    """Create or upgrade the tables. Safe to repeat, to interrupt, and to start in several places at once."""
    from spine.migrations.migrate import current, upgrade

    with _database() as url:
        before = current(url)
        upgrade(url)
        after = current(url)
        done = "nothing to do" if before == after else f"before: {describe(before)}"
        typer.echo(f"{describe(after)}; {done}.")


@db.command("current")
def current_revision() -> None:
    """Show the revision of the tables."""
    from spine.database import require_database
    from spine.migrations.migrate import current

    with _database() as url:
        require_database(url)
        typer.echo(describe(current(url)))


@db.command("check")
def check_tables() -> None:
    """Exit with 1 if this release needs newer tables than the database has."""
    from spine.database import require_database
    from spine.migrations.migrate import current

    with _database() as url:
        require_database(url)
        revision = current(url)
        require_tables(revision)
        typer.echo(describe(revision))


@db.command("adopt-cache")
def adopt_cache() -> None:
    """Use the cache of these settings for this database from now on, after it was moved or emptied on purpose."""
    from spine.cache.ownership import adopt_store
    from spine.cache.store import BlobStore

    store = BlobStore.from_settings(own_settings())
    _with_sessions(lambda sessions: adopt_store(sessions, store))
    typer.echo("This is the cache of the database now. Other processes with another cache stop using theirs.")


@db.command("adopt-key")
def adopt_key() -> None:
    """Use the secret key of these settings for this database from now on, after the key was lost.

    Secrets that are encrypted with another key stay unreadable; enter them again.
    """
    from spine.secrets import key_check
    from spine.secrets.keyring import Keyring

    keyring = Keyring.from_settings(own_settings())
    _with_sessions(lambda sessions: key_check.adopt_key(sessions, keyring))
    typer.echo("This is the key of the database now. Processes with another key use no secrets any more.")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what the key is for; runs show it in `triggered_by`.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="Each includes those before it; read by default.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Limit the key to these domains, such as 'finra.*'; may be repeated. All by default."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help=EXPIRY_HELP)] = None,
) -> None:
    """Create an API key. The key is shown only once."""
    from spine.auth.presenting import describe_limits, parse_expiry
    from spine.auth.service import create_key

    row, key = _in_database(
        lambda session: create_key(session, name, scope or [Scope.READ], domain or [], parse_expiry(expires))
    )
    typer.echo(f"{row.name} ({describe_limits(row)}), id {row.id}. The key is shown only once:", err=True)
    typer.echo(key)


@keys.command("list")
def list_() -> None:
    """List all API keys with their scopes, domains, expiry and last use, without the keys themselves."""
    from spine.auth.presenting import key_table
    from spine.auth.service import list_keys

    for line in key_table(_in_database(list_keys)):
        typer.echo(line)


@keys.command("expire")
def expire(
    id_or_name: Annotated[str, typer.Argument(help="The id or name of an active key.")],
    when: Annotated[str, typer.Argument(help=EXPIRY_HELP)],
) -> None:
    """Set when an API key expires. `never` removes its expiry."""
    from spine.auth.presenting import parse_expiry
    from spine.auth.service import set_expiry

    row = _in_database(lambda session: set_expiry(session, id_or_name, parse_expiry(when)))
    ends = f"expires at {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "never expires"
    typer.echo(f"{row.name} ({row.id}) {ends}.")


@keys.command("revoke")
def revoke(id_or_name: Annotated[str, typer.Argument(help="The id or name of an active key.")]) -> None:
    """Revoke an API key. The next request with it is refused."""
    from spine.auth.service import revoke_key

    row = _in_database(lambda session: revoke_key(session, id_or_name))
    typer.echo(f"{row.name} ({row.id}) is revoked.")


@keys.command("rotate-secret")
def rotate_secret() -> None:
    """Make a new encryption key and encrypt all stored secrets with it."""
    from spine.administration.rotation import rotate
    from spine.tables import SEALED_COLUMNS

    count = _with_sessions(lambda sessions: rotate(sessions, own_settings(), SEALED_COLUMNS))
    typer.echo(f"{count} {'secret is' if count == 1 else 'secrets are'} encrypted with the new key.")


@audit.command("export")
def export(
    form: Annotated[ExportFormat, typer.Option("--format", help="A JSON object on each line, or CSV.")] = (
        ExportFormat.NDJSON
    ),
    since: Annotated[str | None, typer.Option(help="Only entries from this date or time (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only entries up to this date or time (UTC).")] = None,
) -> None:
    """Print the audit trail, newest entry first."""
    from spine.administration.audit_queries import AuditQuery
    from spine.administration.export import export_audit
    from spine.auth.presenting import parse_time

    async def print_all(sessions: "SessionFactory") -> None:
        query = AuditQuery(since=parse_time(since), until=parse_time(until))
        async for line in export_audit(sessions, query, form):
            sys.stdout.write(line)

    _with_sessions(print_all)


def _in_database(work: Callable[["AsyncSession"], Awaitable[Answer]]) -> Answer:
    """Run `work` in one transaction on a database with tables; on an error, print one sentence and exit with 1."""
    from spine.database import transaction

    async def in_one_transaction(sessions: "SessionFactory") -> Answer:
        async with transaction(sessions) as session:
            return await work(session)

    return _with_sessions(in_one_transaction)


def _with_sessions(work: Callable[["SessionFactory"], Awaitable[Answer]]) -> Answer:
    """Run `work` on a database with tables; on an error, print one sentence and exit with 1."""
    from spine.audit.trail import acting_as
    from spine.database import database_errors, make_engine, make_sessions, require_database

    async def run(url: URL) -> Answer:
        engine = make_engine(url)
        try:
            with database_errors(), acting_as(operator()):
                return await work(make_sessions(engine))
        finally:
            await engine.dispose()

    with _database() as url:
        require_database(url)
        return asyncio.run(run(url))


@contextmanager
def _database() -> Iterator[URL]:
    """Close the state folder to others, print which database the settings select, and give its URL.

    On an error in the block, print one sentence and exit with 1.
    """
    try:
        if closed := close_to_others(own_settings().home):
            typer.echo(
                f"Other users could read {closed} files and folders of the state folder; now only you can.", err=True
            )
        url = own_settings().sqlalchemy_url
        typer.echo(f"Database: {url.render_as_string() if url.host else url.database}", err=True)
        yield url
    except NotPrivate as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    except (SpineError, ValueError, ArgumentError) as error:
        typer.echo(error.detail if isinstance(error, SpineError) else f"The settings are invalid: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
