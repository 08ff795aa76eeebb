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
from spine.auth.presenting import EXPIRY_HELP, describe_limits, key_table, parse_expiry
from spine.auth.service import create_key, list_keys, revoke_key, set_expiry
from spine.database import SessionFactory, database_errors, make_engine, make_sessions, transaction
from spine.doctor import doctor
from spine.errors import SpineError
from spine.migrations.migrate import upgrade
from spine.private_files import NotPrivate, close_to_others
from spine.secrets.rotation import rotate
from spine.serve import serve
from spine.settings import get_settings
from spine.tables import SEALED_COLUMNS
from spine.up.command import deploy, up

Answer = TypeVar("Answer")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="A control plane for Prefect pipelines.")
keys = typer.Typer(no_args_is_help=True, help="Create, list, expire and revoke API keys.")
app.command("up")(up)
app.command("deploy")(deploy)
app.command("doctor")(doctor)
app.command("serve")(serve)
app.add_typer(keys, name="keys")


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
    row, key = _in_database(
        lambda session: create_key(session, name, scope or [Scope.READ], domain or [], parse_expiry(expires))
    )
    typer.echo(f"{row.name} ({describe_limits(row)}), id {row.id}. The key is shown only once:", err=True)
    typer.echo(key)


@keys.command("list")
def list_() -> None:
    """List all API keys with their scopes, domains, expiry and last use, without the keys themselves."""
    for line in key_table(_in_database(list_keys)):
        typer.echo(line)


@keys.command("expire")
def expire(
    id_or_name: Annotated[str, typer.Argument(help="The id or name of an active key.")],
    when: Annotated[str, typer.Argument(help=EXPIRY_HELP)],
) -> None:
    """Set when an API key expires. `never` removes its expiry."""
    row = _in_database(lambda session: set_expiry(session, id_or_name, parse_expiry(when)))
    ends = f"expires at {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "never expires"
    typer.echo(f"{row.name} ({row.id}) {ends}.")


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
