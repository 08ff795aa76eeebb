"""The commands `spine up` and `spine deploy`: their options, and the translation of failures into one sentence."""

import contextlib
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError

from spine.settings import Settings
from spine.up.console import Console
from spine.up.home import locked, prepare_home
from spine.up.plan import Plan, WorkerType, check_ports, make_plan, shared_environment
from spine.up.processes import Children, running, stop_all
from spine.up.waiting import Signals, StopRequested, UpError, Waiting

if TYPE_CHECKING:
    from spine.auth.bootstrap import AdminKey


def up(
    home: Annotated[Path, typer.Option(envvar="SPINE_HOME", help="Folder for the state.")] = Path(".spine"),
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8000,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    worker: Annotated[
        WorkerType, typer.Option(help="spine starts runs at once, process is Prefect's own.")
    ] = WorkerType.SPINE,
) -> None:
    """Start Prefect, the worker and the API, and keep them running until Ctrl-C."""
    try:
        _up(make_plan(home, host, port, prefect_port, worker))
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
) -> None:
    """Deploy Spine's own flows to the Prefect API of PREFECT_API_URL or of the Prefect profile; safe to repeat."""
    # Imported here: Prefect and the flows take seconds to import.
    from spine.up.prefect_setup import deploy_to_prefect

    try:
        for name, action in deploy_to_prefect(work_pool or Settings().work_pool, move=work_pool is not None).items():
            typer.echo(f"{name:<20} {action}")
    except UpError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _up(plan: Plan) -> None:
    prepare_home(plan.home)
    os.environ.update(shared_environment(plan))
    settings = _settings(plan)
    with _unexpected(plan.home), Signals() as signals, locked(plan.home):
        console = Console()
        console.say(f"Starting Spine in {plan.home}")
        if running(plan.home):
            with console.step("Leftovers") as step:
                step.detail = "stopped processes of an earlier start"
                stop_all(plan.home, signals.hurry)
        check_ports(plan)
        _run(plan, settings, console, signals)


def _run(plan: Plan, settings: Settings, console: Console, signals: Signals) -> None:
    # Imported here: the database libraries would delay the message about a port that is in use.
    from spine.up.start import Start

    begun = time.monotonic()
    children = Children(plan.home, plan.project)
    waiting = Waiting(signals, children.check)
    start = Start(plan, settings, console, children, waiting)
    try:
        key = start.run()
        for line in _summary(plan, key, time.monotonic() - begun):
            console.say(line)
        waiting.forever()
    finally:
        with console.step("Shutdown"):
            report = start.report_interrupted_runs if start.worker_launched else None
            stop_all(plan.home, signals.hurry, report)


def _summary(plan: Plan, key: "AdminKey", seconds: float) -> list[str]:
    return [
        "",
        f"Spine is ready after {seconds:.1f} s.",
        f"  API         {plan.api}",
        f"  API docs    {plan.api}/docs",
        f"  Prefect UI  {plan.prefect_ui}",
        f"  API key     {key.note}",
        f"  Logs        {plan.home / 'logs'}",
        f"  To deploy from another shell: export PREFECT_API_URL={plan.prefect_api}",
        "Ctrl-C stops everything.",
    ]


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
