"""The steps of a start, in order.

Waiting overlaps where nothing depends on it: while the Prefect server comes up, Spine's database is migrated and
the API starts.
"""

from datetime import datetime

import httpx
from sqlalchemy import URL

from spine.auth.bootstrap import AdminKey, ensure_admin_key
from spine.deployment_report import DeploymentReport, report_path
from spine.errors import SpineError
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.up.console import Console, last_words, lines_since, presentable
from spine.up.deploy import PREFECT_YAML, SECONDS_FOR_A_DEPLOY, ProjectDeploy
from spine.up.home import worker_name, write_atomically
from spine.up.plan import Plan, api_environment, server_environment, worker_environment
from spine.up.prefect_setup import crash_interrupted_runs, ensure_work_pool, is_healthy, last_heartbeat
from spine.up.processes import API, DEPLOY, OWN_DEPLOY, SERVER, WORKER, Child, Children
from spine.up.waiting import UpError, Waiting

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
        self.worker_launched = False
        self._heartbeat_before: datetime | None = None

    def run(self) -> AdminKey:
        """Take every step; raises `UpError` when one fails and `StopRequested` after a signal."""
        if self.plan.external_prefect is None:
            self._launch_server()
        self._database()
        key = self._admin_key()
        self._launch_api()
        self._prefect()
        self._work_pool()
        self._interrupted_runs()
        self._deploy()
        self._launch_worker()
        self._api()
        self._worker()
        return key

    def report_interrupted_runs(self) -> list[str]:
        """Set the runs that our worker left open to CRASHED; call it only while the worker does not run."""
        return crash_interrupted_runs(self.plan.prefect_api, self.settings.work_pool, self.worker_name)

    def _launch_server(self) -> None:
        where = ["--host", self.plan.prefect_host, "--port", str(self.plan.prefect_port)]
        self._children.start(SERVER, ["spine.prefect_server", *where], server_environment(self.plan))

    def _launch_api(self) -> None:
        where = ["--host", self.plan.host, "--port", str(self.plan.port)]
        # Open event streams would otherwise delay the end of the API until it is killed.
        module = ["spine.cli", "serve", *where, "--grace-seconds", "1"]
        self._children.start(API, module, api_environment(self.plan))

    def _launch_worker(self) -> None:
        self._heartbeat_before = self._waiting.result(self._heartbeat)
        self.worker_launched = True
        what = ["--pool", self.settings.work_pool, "--type", self.plan.worker.value, "--name", self.worker_name]
        self._children.start(WORKER, ["prefect", "worker", "start", *what], worker_environment(self.plan))

    def _database(self) -> None:
        with self._console.step("Database") as step:
            url = self.settings.sqlalchemy_url
            step.detail = url.render_as_string() if url.host else str(url.database)
            self._waiting.result(lambda: _migrate(url))

    def _admin_key(self) -> AdminKey:
        with self._console.step("Admin key") as step:
            try:
                key = self._waiting.result(lambda: ensure_admin_key(self.settings))
            except SpineError as error:
                raise UpError(presentable(error.detail)) from error
            except OSError as error:
                raise UpError(f"The admin key cannot be kept in {self.plan.home}: {error.strerror}.") from error
            # Shown here and not in the summary: the key is shown only once, and a later step can fail.
            step.detail = f"{key.secret_to_show}   (shown this once)" if key.secret_to_show else key.note
        return key

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
            existing = self.plan.external_prefect
            step.detail = f"{existing}   (existing, from PREFECT_API_URL)" if existing else self.plan.prefect_ui

    def _work_pool(self) -> None:
        with self._console.step("Work pool") as step:
            pool = self.settings.work_pool
            step.detail = self._waiting.result(lambda: ensure_work_pool(self.plan.prefect_api, pool, self.plan.worker))

    def _interrupted_runs(self) -> None:
        with self._console.step("Interrupted runs", if_detail=True) as step:
            names = self._waiting.result(self.report_interrupted_runs)
            if names:
                more = ", ..." if len(names) > 5 else ""
                step.detail = f"{len(names)} set to Crashed: {', '.join(names[:5])}{more}"

    def _deploy(self) -> None:
        with self._console.step("Deployments") as step:
            # On a Prefect that others use, too, existing deployments stay on their pool.
            pool = [] if self.plan.external_prefect else ["--work-pool", self.settings.work_pool]
            own = self._children.launch(OWN_DEPLOY, ["spine.cli", "deploy", *pool], self._deploy_environment())
            report = self._deploy_project()
            if not self._ended(own):
                raise UpError(f"spine deploy did not end within {SECONDS_FOR_A_DEPLOY:.0f} s; see {own.log}.")
            if own.process.returncode != 0:
                reason = last_words(lines_since(own.log, own.log_offset)).rstrip(".")
                raise UpError(f"Spine's own flows could not be deployed: {reason} (log: {own.log}).")
            step.detail = "Spine's own" + (f", {report.deployed} from {PREFECT_YAML}" if report else "")
        for name, reason in report.failed.items() if report else ():
            self._console.failure(f"Deployment {name}", f"{reason} (log: {self._log(DEPLOY)})")

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
        child.process.kill()
        child.process.wait()
        return False

    def _api(self) -> None:
        with self._console.step("API") as step:
            otherwise = f"The API did not answer within {_API_SECONDS:.0f} s; see {self._log(API)}."
            self._waiting.until(lambda: _answers(f"{self.plan.api}/health/live"), _API_SECONDS, otherwise)
            step.detail = self.plan.api

    def _worker(self) -> None:
        with self._console.step("Worker") as step:
            otherwise = f"The worker did not report to Prefect within {_READY_SECONDS:.0f} s; see {self._log(WORKER)}."
            self._waiting.until(self._worker_has_reported, _READY_SECONDS, otherwise)
            otherwise = f"The stack was not ready within {_READY_SECONDS:.0f} s; see {self.plan.home / 'logs'}."
            self._waiting.until(lambda: _answers(f"{self.plan.api}/health/ready"), _READY_SECONDS, otherwise)
            step.detail = self.worker_name

    def _worker_has_reported(self) -> bool:
        # For a minute the last heartbeat of an earlier worker of this name looks alive: wait for a newer one.
        return self._waiting.result(self._heartbeat) != self._heartbeat_before

    def _heartbeat(self) -> datetime | None:
        return last_heartbeat(self.plan.prefect_api, self.settings.work_pool, self.worker_name)

    def _log(self, name: str) -> str:
        return str(self.plan.home / "logs" / f"{name}.log")


def _migrate(url: URL) -> None:
    try:
        upgrade(url)
    except SpineError as error:
        raise UpError(presentable(error.detail)) from error
    except Exception as error:
        # Each SQL statement, driver and database has errors of its own.
        reason = presentable(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        raise UpError(f"Spine's database {url.render_as_string()} could not be migrated: {reason}.") from error


def _answers(url: str) -> bool:
    try:
        # The API is on this machine, so the environment's proxy is not used.
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
