"""The `spine` command."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.callers import Scope
from spine.auth.service import create_key, list_keys, revoke_key
from spine.database import SessionFactory, database_errors, make_engine, make_sessions, transaction
from spine.doctor import doctor
from spine.errors import SpineError
from spine.migrations.migrate import upgrade
from spine.private_files import NotPrivate, close_to_others
from spine.secrets.rotation import rotate
from spine.settings import get_settings
from spine.tables import SEALED_COLUMNS
from spine.up.command import deploy, up

Answer = TypeVar("Answer")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="A control plane for Prefect pipelines.")
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.command("up")(up)
app.command("deploy")(deploy)
app.command("doctor")(doctor)
app.add_typer(keys, name="keys")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what the key is for; runs show it in `triggered_by`.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="Each includes those before it; read by default.")] = None,
) -> None:
    """Create an API key. The key is shown only once."""
    row, key = _in_database(lambda session: create_key(session, name, scope or [Scope.READ]))
    typer.echo(f"{row.name} ({', '.join(row.scopes)}), id {row.id}. The key is shown only once:", err=True)
    typer.echo(key)


@keys.command("list")
def list_() -> None:
    """List all API keys, without the keys themselves."""
    for row in _in_database(list_keys):
        state = f"revoked {row.revoked_at:%Y-%m-%d %H:%M}" if row.revoked_at else "active"
        typer.echo(f"{row.id}  {row.name:24}  {','.join(row.scopes):18}  {row.created_at:%Y-%m-%d %H:%M}  {state}")


@keys.command("revoke")
def revoke(id_or_name: Annotated[str, typer.Argument(help="The id or name of an active key.")]) -> None:
    """Revoke an API key. The next request with it is refused."""
    row = _in_database(lambda session: revoke_key(session, id_or_name))
    typer.echo(f"{row.name} ({row.id}) is revoked.")


@keys.command("rotate-secret")
def rotate_secret() -> None:
    """Make a new encryption key and encrypt all stored secrets with it."""
    count = _with_sessions(lambda sessions: rotate(sessions, get_settings(), SEALED_COLUMNS))
    typer.echo(f"{count} {'secret is' if count == 1 else 'secrets are'} encrypted with the new key.")


def _in_database(work: Callable[[AsyncSession], Awaitable[Answer]]) -> Answer:
    """Run `work` in one transaction on a migrated database; on an error, print one sentence and exit with 1."""

    async def in_one_transaction(sessions: SessionFactory) -> Answer:
        async with transaction(sessions) as session:
            return await work(session)

    return _with_sessions(in_one_transaction)


def _with_sessions(work: Callable[[SessionFactory], Awaitable[Answer]]) -> Answer:
    """Run `work` on a migrated database; on an error, print one sentence and exit with 1."""

    async def run(url: URL) -> Answer:
        engine = make_engine(url)
        try:
            with database_errors():
                return await work(make_sessions(engine))
        finally:
            await engine.dispose()

    try:
        if closed := close_to_others(get_settings().home):
            typer.echo(
                f"Other users could read {closed} files and folders of the state folder; now only you can.", err=True
            )
        url = get_settings().sqlalchemy_url
        upgrade(url)
        return asyncio.run(run(url))
    except NotPrivate as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    except (SpineError, ValueError, ArgumentError) as error:
        typer.echo(error.detail if isinstance(error, SpineError) else f"The settings are invalid: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
