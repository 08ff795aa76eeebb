"""The commands `spine up` and `spine deploy`: their options, and the translation of failures into one sentence."""

import contextlib
import json
import os
import shlex
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from spine.own_settings import forget_own_flows, keep_for_own_flows
from spine.prefect_server.engine_line import name_of_engine
from spine.prefect_server.login import login_url
from spine.settings import Settings
from spine.up.console import Console
from spine.up.home import (
    credential_path,
    locked,
    prefect_credential,
    prepare_home,
    remember_prefect,
)
from spine.up.plan import Plan, WorkerType, check_ports, make_plan, shared_environment
from spine.up.processes import Children, running, stop_all
from spine.up.waiting import Signals, StopRequested, UpError, Waiting

SECONDS_TO_CLOSE = 10.0


def up(
    home: Annotated[Path, typer.Option(envvar="SPINE_HOME", help="Folder for the state.")] = Path(".spine"),
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8000,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    worker: Annotated[
        WorkerType, typer.Option(help="spine starts runs at once, process is Prefect's own.")
    ] = WorkerType.SPINE,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="SPINE_UP_DATABASE",
            help="A PostgreSQL server, postgresql://user@host, on which to keep everything; by default SQLite files.",
        ),
    ] = None,
) -> None:
    """Start Prefect, the worker and the API, and keep them running until Ctrl-C."""
    try:
        _up(make_plan(home, host, port, prefect_port, worker), database)
    except UpError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    except StopRequested:
        pass


def deploy(
    work_pool: Annotated[
        str | None,
        typer.Option(help="The work pool for the deployments. By default SPINE_WORK_POOL for new ones; others stay."),
    ] = None,
    base_job_template: Annotated[
        Path | None,
        typer.Option(help="A JSON file with the base job template of the work pool, if the pool is created."),
    ] = None,
) -> None:
    """Deploy Spine's own flows to the Prefect API of PREFECT_API_URL or of the Prefect profile; safe to repeat."""
    # Imported here: Prefect and the flows take seconds to import.
    from spine.up.prefect_setup import deploy_to_prefect

    try:
        template = _template_in(base_job_template) if base_job_template else None
        pool = work_pool or Settings().work_pool
        for name, action in deploy_to_prefect(pool, move=work_pool is not None, template=template).items():
            typer.echo(f"{name:<20} {action}")
    except UpError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _template_in(file: Path) -> dict[str, Any]:
    """The base job template in a JSON file. Raises `UpError`."""
    try:
        template = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UpError(f"{file} cannot be read ({(error.strerror or 'unknown reason').lower()}).") from None
    except ValueError:
        raise UpError(f"{file} is not a JSON file.") from None
    if not isinstance(template, dict) or not {"job_configuration", "variables"} <= template.keys():
        raise UpError(f"{file} is not a base job template: it has no job_configuration or no variables.")
    return template


def _up(plan: Plan, database: str | None) -> None:
    server = None
    if database:
        # Imported here: few need the client of PostgreSQL.
        from spine.up.postgresql import postgresql_server

        server = postgresql_server(database, has_prefect=plan.external_prefect is None)
    if server:
        server.set_variables(os.environ)
    # What this command and its children write is for this user only.
    os.umask(0o077)
    closed = prepare_home(plan.home)
    with _unexpected(plan.home), Signals() as signals, locked(plan.home):
        if plan.external_prefect is None:
            plan = replace(plan, prefect_auth=prefect_credential(plan.home))
        os.environ.update(shared_environment(plan))
        settings = _settings(plan)
        console = Console()
        console.say(f"Starting Spine in {plan.home}")
        with console.step("State folder", if_detail=True) as step:
            if closed:
                step.detail = f"other users could read {closed} of its files and folders; now only you can"
        has_leftovers = running(plan.home)
        if has_leftovers:
            with console.step("Leftovers") as step:
                step.detail = "stopped processes of an earlier start"
                stop_all(plan.home, signals.hurry)
        # The kernel may still be closing the ports of what was stopped.
        check_ports(plan, SECONDS_TO_CLOSE if has_leftovers else 0)
        if server:
            with console.step("PostgreSQL") as step:
                missing = Waiting(signals, lambda: None).result(server.create_missing)
                step.detail = f"{server.place}" + (f", created {' and '.join(missing)}" if missing else "")
        _run(plan, settings, console, signals)


def _run(plan: Plan, settings: Settings, console: Console, signals: Signals) -> None:
    # Imported here: the database libraries would delay the message about a port that is in use.
    from spine.up.start import Start

    begun = time.monotonic()
    keep_for_own_flows(plan.home)
    remember_prefect(plan.home, plan.prefect_api if plan.prefect_auth else None)
    children = Children(plan.home, plan.project)
    waiting = Waiting(signals, children.check)
    start = Start(plan, settings, console, children, waiting)
    try:
        key = start.run()
        engines = _engines(plan, settings.sqlalchemy_url, start.engine_of_prefect)
        for line in _summary(plan, engines, key, time.monotonic() - begun):
            console.say(line)
        waiting.forever()
    finally:
        with console.step("Shutdown"):
            stop_all(plan.home, signals.hurry, start.prepared_report())
            forget_own_flows(plan.home)


def _summary(plan: Plan, engines: str, key: str, seconds: float) -> list[str]:
    return [
        "",
        f"Spine is ready after {seconds:.1f} s.",
        f"  API         {plan.api}",
        f"  API docs    {plan.api}/docs",
        f"  Prefect UI  {login_url(plan.prefect_ui, plan.prefect_auth) if plan.prefect_auth else plan.prefect_ui}",
        f"  API key     {key}",
        f"  Databases   {engines}",
        f"  Logs        {plan.home / 'logs'}",
        f"  To deploy from another shell: export {_variables_of_prefect(plan)}",
        "Ctrl-C stops everything.",
    ]


def _engines(plan: Plan, database: URL, of_prefect: str | None) -> str:
    """On which engine Spine and Prefect keep their tables; no URL, because that can contain a password."""
    own = name_of_engine(database.get_backend_name())
    if plan.external_prefect or of_prefect is None:
        return f"Spine's on {own}, Prefect's where its server keeps it"
    return own if own == of_prefect else f"Spine's on {own}, Prefect's on {of_prefect}"


def _variables_of_prefect(plan: Plan) -> str:
    """What `prefect deploy` needs in another shell, as assignments; the credential itself is not shown."""
    url = f"PREFECT_API_URL={plan.prefect_api}"
    path = credential_path(plan.home)
    return f'{url} PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(path))})"' if plan.prefect_auth else url


def _settings(plan: Plan) -> Settings:
    try:
        settings = Settings(home=plan.home)
        _ = settings.sqlalchemy_url
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = "SPINE_" + "_".join(str(part) for part in first["loc"]).upper() if first["loc"] else "The settings"
        raise UpError(f"{where} cannot be used: {first['msg'].removeprefix('Value error, ')}.") from None
    except ValueError as error:
        raise UpError(f"{error}.") from None
    except ArgumentError:
        raise UpError("SPINE_DATABASE_URL is not a URL such as postgresql://user:password@host/database.") from None
    return settings


@contextlib.contextmanager
def _unexpected(home: Path) -> Iterator[None]:
    """Write the traceback of an unexpected error to a file, and show one sentence in the terminal."""
    try:
        yield
    except (UpError, StopRequested):
        raise
    except Exception as error:
        log = home / "logs" / "up.log"
        with contextlib.suppress(OSError), log.open("a") as file:
            traceback.print_exc(file=file)
        raise UpError(f"Unexpected {type(error).__name__}: {error} (details: {log}).") from error
