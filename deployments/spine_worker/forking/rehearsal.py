"""Does once, in the interpreter that runs are forked from, what the first use of Prefect does in each process.

Of the CPU time of a run of three steps, some 60 of 190 ms went into this: a client reads 150 certificates, pydantic
builds the models that Prefect defers, and rich compiles the expressions by which it colours the log.
"""

from contextlib import suppress

_LINE = "12:00:00.000 | INFO | Flow run 'name' - View at http://host/runs/flow-run/1 Finished in state Completed()"


def rehearse() -> None:
    """Build models, clients and expressions. Nothing is sent, and no thread is started.

    Whatever fails here, each run does for itself.
    """
    for rehearsal in (_build_models, _color_a_line, _make_clients):
        with suppress(Exception):
            rehearsal()


def _build_models() -> None:
    from prefect.client.schemas.actions import FlowRunUpdate, LogCreate, StateCreate
    from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, TaskRun
    from prefect.client.schemas.responses import OrchestrationResult
    from prefect.events.schemas.events import Event

    for model in (Event, FlowRun, FlowRunPolicy, FlowRunUpdate, LogCreate, OrchestrationResult, State, StateCreate):
        model.model_rebuild()
    TaskRun.model_rebuild()


def _color_a_line() -> None:
    from prefect.logging.highlighters import PrefectConsoleHighlighter
    from rich.text import Text

    PrefectConsoleHighlighter().highlight(Text(_LINE))


def _make_clients() -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    # Without the URL of a server Prefect would start one.
    if get_current_settings().api.url:
        get_client(sync_client=True)
        get_client()
