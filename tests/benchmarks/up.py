"""The rows about `spine up` as a whole, beside Prefect's own server and worker: starts, memory, and runs."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import POSTGRESQL, SQLITE
from tests.benchmarks.costs import measure_costs, measure_memory, measure_runs_in_a_row
from tests.benchmarks.figures import Figure, Row, at_most
from tests.benchmarks.runs import measure_bursts, measure_latency, measure_paired_burst, one_run, warm_up
from tests.benchmarks.stacks import (
    POLLING,
    STOCK,
    Target,
    deploy_stock,
    postgresql_databases,
    spine_stack,
    stock_server,
    stock_stack,
    stock_worker,
    write_project,
)

READY_WITHIN = {"first": 9.0, "again": 5.0}


def measure_sqlite(bench: Bench) -> None:
    """Everything on SQLite files, with the stock stack beside it."""
    project = write_project(bench.folder / "project")
    stock = bench.folder / "stock"
    stock.mkdir()
    theirs = {which: _start_stock(stock, project, which) for which in READY_WITHIN}
    home = bench.folder / "home"
    with _started(bench, home, project, "first", theirs["first"], SQLITE):
        pass
    with ExitStack() as cleanup:
        again = _started(bench, home, project, "again", theirs["again"], SQLITE)
        spine = cleanup.enter_context(again)
        others = cleanup.enter_context(stock_stack(stock, (STOCK, POLLING)))
        warm_up([spine, *others.values()])
        pair = [spine, others[STOCK]]
        measure_memory(bench, pair, SQLITE)
        measure_costs(bench, pair, SQLITE)
        measure_latency(bench, [spine, *others.values()], SQLITE)
        measure_paired_burst(bench, spine, others[STOCK], SQLITE)
    # Alone, as nothing else is to be executed beside it.
    with spine_stack(home, bench.folder / "alone.txt", project) as (_, spine):
        warm_up([spine])
        measure_bursts(bench, spine, SQLITE)
        measure_runs_in_a_row(bench, spine, SQLITE)


def measure_postgresql(bench: Bench) -> None:
    """The starts and the runs with all tables on PostgreSQL."""
    project, home = write_project(bench.folder / "pg-project"), bench.folder / "pg-home"
    with ExitStack() as cleanup:
        databases = cleanup.enter_context(postgresql_databases())
        spine = cleanup.enter_context(_started(bench, home, project, "first", (), POSTGRESQL, **databases))
        warm_up([spine])
        measure_latency(bench, [spine], POSTGRESQL)
        measure_bursts(bench, spine, POSTGRESQL)


@contextmanager
def _started(
    bench: Bench, home: Path, project: Path, which: str, theirs: tuple[Figure, ...], engine: str, **environment: str
) -> Iterator[Target]:
    """A `spine up`, timed until it says that it is ready and until the first step of a run that is triggered then."""
    began = time.monotonic()
    with spine_stack(home, bench.folder / f"{home.name}-{which}.txt", project, **environment) as (_, target):
        ready = time.monotonic() - began
        first_step, _ = one_run(target)
        figures = (Figure(ready, "s"), Figure(ready + first_step, "s", "first step of a run"))
        aims = (at_most(READY_WITHIN[which]),)
        what = f"start until ready for a run, {'the first time' if which == 'first' else 'again'}"
        bench.add(Row(what, figures, "its server and its worker" if theirs else "", theirs, aims, engine))
        yield target


def _start_stock(folder: Path, project: Path, which: str) -> tuple[Figure, ...]:
    """Seconds until the stock server answers and then the stock worker has reported itself."""
    with stock_server(folder) as (prefect, _, server_seconds):
        if which == "first":
            deploy_stock(prefect, project, (STOCK, POLLING))
        with stock_worker(prefect, folder, STOCK) as (_, worker_seconds):
            return (Figure(server_seconds + worker_seconds, "s"),)
