"""The steps of a start, in order.

Waiting overlaps where nothing depends on it: while the Prefect server comes up, Spine's database is migrated and
the API starts.
"""

import importlib
import socket
import sys
from collections.abc import Callable

import psutil

from spine.deployment_report import DeploymentReport, report_path
from spine.prefect_server.engine_line import engine_in
from spine.settings import Settings
from spine.up.calls import Calls
from spine.up.console import Console, lines_since
from spine.up.deploy import PREFECT_YAML, SECONDS_FOR_A_DEPLOY, ProjectDeploy
from spine.up.home import worker_name, write_atomically
from spine.up.plan import Plan, api_environment, nursery_environment, server_environment, worker_environment
from spine.up.prefect_setup import answers, crash_interrupted_runs, is_healthy
from spine.up.processes import API, DATABASE, DEPLOY, NURSERY, SERVER, WORKER, Child, Children, kill
from spine.up.waiting import UpError, Waiting, in_background

# Generous: a first start on a busy machine with a slow disk must succeed, too.
_SERVER_SECONDS = 180.0
_EXTERNAL_SECONDS = 5.0
_API_SECONDS = 90.0
_READY_SECONDS = 90.0


class Start:
    """One start of the stack: `run` takes the steps and returns when everything is ready."""

    def __init__(self, plan: Plan, settings: Settings, console: Console, children: Children, waiting: Waiting) -> None:
        self.plan = plan
        self.settings = settings
        self._console = console
        self._children = children
        self._waiting = waiting
        self.worker_name = worker_name(plan.home)
        self.engine_of_prefect: str | None = None
        self._works = False
        self._heartbeat_before: str | None = None

    def run(self) -> str:
        """Take every step, and say where the admin key is.

        Raises `UpError` when a step fails and `StopRequested` after a signal.
        """
        self._launch_nursery()
        if self.plan.external_prefect is None:
            self._launch_server()
        self._launch_worker()
        key = self._own_database()
        self._launch_api()
        self._children.end_nursery()
        self._prefect()
        self._work_pool()
        self._interrupted_runs()
        self._deploy()
        self._begin_work()
        self._api()
        self._worker()
        self._calls.close()
        return key

    def prepared_report(self) -> Callable[[], object] | None:
        """What reports interrupted runs to Prefect during a stop, if there can be any.

        Prefect's client is imported for it from now on, while the worker stops.
        """
        if not self._works:
            return None
        imported = in_background(lambda: importlib.import_module("prefect.client.orchestration"))

        def report() -> list[str]:
            imported.result()
            return crash_interrupted_runs(self.plan.prefect_api, self.settings.work_pool, self.worker_name)

        return report

    def _launch_nursery(self) -> None:
        # Elsewhere system libraries do not survive a fork, and each process starts an interpreter.
        if sys.platform == "linux":
            forks = self._children.start_nursery(nursery_environment(self.plan))
            otherwise = f"The modules were not imported within {_READY_SECONDS:.0f} s; see {self._log(NURSERY)}."
            self._waiting.until(forks.is_ready, _READY_SECONDS, otherwise)

    def _launch_server(self) -> None:
        where = ["--host", self.plan.prefect_host, "--port", str(self.plan.prefect_port)]
        self._server = self._children.start(SERVER, ["spine.prefect_server", *where], server_environment(self.plan))

    def _launch_api(self) -> None:
        where = ["--host", self.plan.host, "--port", str(self.plan.port)]
        # Open event streams would otherwise delay the end of the API until it is killed.
        module = ["spine.cli", "serve", *where, "--grace-seconds", "1"]
        self._children.start(API, module, api_environment(self.plan))

    def _launch_worker(self) -> None:
        """Start the process of the worker, which makes the calls to Prefect first."""
        calls, of_calls = socket.socketpair()
        self._begin, begin = socket.socketpair()
        what = ["--pool", self.settings.work_pool, "--type", self.plan.worker.value, "--name", self.worker_name]
        with of_calls, begin:
            passed = [of_calls.fileno(), begin.fileno()]
            child = self._children.start(WORKER, ["spine.up.worker", *what], worker_environment(self.plan), passed)
        self._calls = Calls(calls, child.log)

    def _begin_work(self) -> None:
        self._heartbeat_before = self._waiting.result(self._heartbeat)
        self._works = True
        with self._begin:
            self._begin.sendall(b"!")

    def _own_database(self) -> str:
        """Prepare Spine's database, in a process of its own; where the admin key is."""
        connection, theirs = socket.socketpair()
        with theirs:
            environment = api_environment(self.plan)
            child = self._children.launch(DATABASE, ["spine.up.own_database"], environment, [theirs.fileno()])
        calls = Calls(connection, child.log)
        with self._console.step("Database") as step:
            url = self.settings.sqlalchemy_url
            step.detail = url.render_as_string() if url.host else str(url.database)
            self._waiting.result(lambda: calls.result("migrate"))
        with self._console.step("Admin key") as step:
            secret, note = self._waiting.result(lambda: calls.result("admin_key"))
            # Shown here and not in the summary: the key is shown only once, and a later step can fail.
            step.detail = f"{secret}   (shown this once)" if secret else note
        calls.close()
        self._waiting.result(child.process.wait)
        return str(note)

    def _prefect(self) -> None:
        api = self.plan.prefect_api
        with self._console.step("Prefect server") as step:
            if self.plan.external_prefect:
                otherwise = f"Prefect at {api} (PREFECT_API_URL) cannot be reached; start it or unset the variable."
                seconds = _EXTERNAL_SECONDS
            else:
                otherwise = (
                    f"The Prefect server did not answer within {_SERVER_SECONDS:.0f} s; see {self._log(SERVER)}."
                )
                seconds = _SERVER_SECONDS
            external = self.plan.external_prefect is not None
            self._waiting.until(lambda: is_healthy(api, trust_env=external), seconds, otherwise)
            if self.plan.external_prefect is None:
                self.engine_of_prefect = engine_in(lines_since(self._server.log, self._server.log_offset))
            existing = self.plan.external_prefect
            step.detail = f"{existing}   (existing, from PREFECT_API_URL)" if existing else self.plan.prefect_ui

    def _work_pool(self) -> None:
        with self._console.step("Work pool") as step:
            pool = self.settings.work_pool
            api = self.plan.prefect_api
            step.detail = self._waiting.result(
                lambda: self._calls.result("ensure_work_pool", api, pool, self.plan.worker.value)
            )

    def _interrupted_runs(self) -> None:
        with self._console.step("Interrupted runs", if_detail=True) as step:
            which = self.plan.prefect_api, self.settings.work_pool, self.worker_name
            names = self._waiting.result(lambda: self._calls.result("crash_interrupted_runs", *which))
            if names:
                more = ", ..." if len(names) > 5 else ""
                step.detail = f"{len(names)} set to Crashed: {', '.join(names[:5])}{more}"

    def _deploy(self) -> None:
        with self._console.step("Deployments") as step:
            own = in_background(self._deploy_own)
            report = self._deploy_project()
            if not self._waiting.within(own.done, SECONDS_FOR_A_DEPLOY):
                raise UpError(f"Spine's own flows were not deployed within {SECONDS_FOR_A_DEPLOY:.0f} s.")
            own.result()
            step.detail = "Spine's own" + (f", {report.deployed} from {PREFECT_YAML}" if report else "")
        for name, reason in report.failed.items() if report else ():
            self._console.failure(f"Deployment {name}", f"{reason} (log: {self._log(DEPLOY)})")

    def _deploy_own(self) -> None:
        try:
            # On a Prefect that others use, too, existing deployments stay on their pool.
            self._calls.result("deploy", self.settings.work_pool, self.plan.external_prefect is None)
        except UpError as error:
            raise UpError(f"Spine's own flows could not be deployed: {error} (log: {self._log(WORKER)})") from error

    def _deploy_project(self) -> DeploymentReport | None:
        """Deploy the project's `prefect.yaml`, if it has one."""
        path = report_path(self.plan.home)
        path.unlink(missing_ok=True)
        if not (self.plan.project / PREFECT_YAML).is_file():
            return None
        report = ProjectDeploy(self.plan.project, self.plan.home / "run", self._prefect_deploy).deploy()
        write_atomically(path, report.model_dump_json(indent=2))
        return report

    def _prefect_deploy(self, arguments: list[str]) -> Child | None:
        module = ["prefect", "deploy", "--no-prompt", *arguments]
        child = self._children.launch(DEPLOY, module, self._deploy_environment())
        return child if self._ended(child) else None

    def _deploy_environment(self) -> dict[str, str]:
        # Prefect wraps its lines to the width of the terminal, which a log does not have.
        return {**worker_environment(self.plan), "COLUMNS": "200"}

    def _ended(self, child: Child) -> bool:
        """Wait for a child that ends by itself; kill it and return False after `SECONDS_FOR_A_DEPLOY`."""
        if self._waiting.within(lambda: child.process.poll() is not None, SECONDS_FOR_A_DEPLOY):
            return True
        kill([psutil.Process(child.process.pid)])
        return False

    def _api(self) -> None:
        with self._console.step("API") as step:
            otherwise = f"The API did not answer within {_API_SECONDS:.0f} s; see {self._log(API)}."
            self._waiting.until(lambda: self._api_answers("/health/live"), _API_SECONDS, otherwise)
            step.detail = self.plan.api

    def _worker(self) -> None:
        with self._console.step("Worker") as step:
            otherwise = f"The worker did not report to Prefect within {_READY_SECONDS:.0f} s; see {self._log(WORKER)}."
            self._waiting.until(self._worker_has_reported, _READY_SECONDS, otherwise)
            otherwise = f"The stack was not ready within {_READY_SECONDS:.0f} s; see {self.plan.home / 'logs'}."
            self._waiting.until(lambda: self._api_answers("/health/ready"), _READY_SECONDS, otherwise)
            step.detail = self.worker_name

    def _api_answers(self, path: str) -> bool:
        # The API is on this machine, so the environment's proxy is not used.
        return answers(self.plan.api + path, trust_env=False)

    def _worker_has_reported(self) -> bool:
        # For a minute the last heartbeat of an earlier worker of this name looks alive: wait for a newer one.
        return self._waiting.result(self._heartbeat) != self._heartbeat_before

    def _heartbeat(self) -> str | None:
        which = self.plan.prefect_api, self.settings.work_pool, self.worker_name
        found: str | None = self._calls.result("last_heartbeat", *which)
        return found

    def _log(self, name: str) -> str:
        return str(self.plan.home / "logs" / f"{name}.log")
