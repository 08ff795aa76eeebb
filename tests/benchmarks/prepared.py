"""Stacks with thousands of stored runs: made once in a pass, copied for each part, and filled while nothing runs."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.support.prefect_processes import prefect_environment, prefect_server, prefect_worker
from tests.support.processes import free_port
from tests.support.stack import DEMO, FOLLOWING, Api, PrefectStack, api_process

# Those of `demo.typed`.
PARAMS = {"day": "2025-12-15", "tier": "A"}
# What a part's stack may reach: receivers and files of this machine.
OPEN = {"SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}


@dataclass(frozen=True)
class Samples:
    """What is stored once, to be copied: a run of three steps, and a schedule with a run of its own."""

    run: str
    schedule: str
    run_of_schedule: str


@contextmanager
def prepared_stack(
    bench: Bench, name: str, fill: Callable[[PrefectStack, Samples], None] = lambda *_: None
) -> Iterator[tuple[PrefectStack, Api, Samples]]:
    """A stack of its own with the demo's deployments, after `fill` has stored more in Prefect's database."""
    samples = _prepare(bench)
    folder = bench.folder / name
    shutil.copytree(_home(bench), folder)
    # An API with a database of its own counts all runs; one that has read until now would not look at older copies.
    shutil.rmtree(folder / "api")
    stack = _stack(folder)
    fill(stack, samples)
    with (
        prefect_server(stack.environment, folder / "server.log"),
        api_process(stack.url, stack.home, folder / "api", **FOLLOWING, **OPEN, **_file_roots(folder)) as api,
    ):
        yield stack, api, samples


def _prepare(bench: Bench) -> Samples:
    """Make the stack that is copied, unless this pass has it."""
    home, known = _home(bench), bench.folder / "samples"
    if not known.exists():
        home.mkdir()
        stack = _stack(home)
        with prefect_server(stack.environment, home / "server.log"):
            found = _samples(stack, home)
        known.write_text("\n".join(vars(found).values()))
    return Samples(*known.read_text().split("\n"))


def _samples(stack: PrefectStack, folder: Path) -> Samples:
    stack.post("/work_pools/", {"name": "spine", "type": "spine"})
    stack.cli("deploy", "--all", "--no-prompt", "--prefect-file", str(DEMO / "prefect.yaml"))
    stack.deploy_own_flows()
    (folder / "unless").touch()
    with (
        prefect_worker(stack.environment, folder / "worker.log"),
        api_process(stack.url, stack.home, folder / "api", **FOLLOWING) as api,
    ):
        run = api.trigger("demo.three_steps", marks=str(folder / "marks"), unless=str(folder / "unless"))
        api.wait_for(run, "COMPLETED")
        return Samples(run, *_schedule(stack, api))


def _schedule(stack: PrefectStack, api: Api) -> tuple[str, str]:
    """A schedule and a finished run of it."""
    target = {"target_type": "WORKFLOW", "target_name": "demo.typed"}
    body = {**target, "target_params": PARAMS, "name": "the-first", "cron_expression": "0 5 * * *"}
    made = api.client.post("/schedules", json={**body, "timezone": "America/New_York"})
    assert made.status_code == 201, made.text
    schedule_id = made.json()["id"]
    return schedule_id, stack.make_run(stack.flow_id("demo.typed"), "COMPLETED", deployment_id=schedule_id)


def _stack(folder: Path) -> PrefectStack:
    environment = prefect_environment(folder / "prefect", free_port())
    return PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", {**os.environ, **environment})


def _home(bench: Bench) -> Path:
    return bench.folder / "prepared"


def _file_roots(folder: Path) -> dict[str, str]:
    (folder / "files").mkdir(exist_ok=True)
    return {"SPINE_FILE_ROOTS": str(folder / "files")}
