"""The plan of one start: its addresses and folders, the environment of each child, and the check of the ports."""

import errno
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from spine.egress.own_services import LISTENER, PREFECT_API, endpoints_in, endpoints_of_url
from spine.own_settings import SECRET_FIELDS, variable_of
from spine.up.waiting import UpError

# Whoever may use Prefect's API may run code here, so it listens on the loopback, not on `--host`.
LOOPBACK = "127.0.0.1"
SECONDS_BETWEEN_CHECKS = 0.1


class WorkerType(StrEnum):
    """The type of worker: `spine` starts runs at once, `process` is Prefect's own."""

    SPINE = "spine"
    PROCESS = "process"


@dataclass(frozen=True)
class Plan:
    """One start of the stack; all paths are absolute.

    `external_prefect` is the `PREFECT_API_URL` that the user named; without it a Prefect server is started, whose API
    needs the credential `prefect_auth`.
    """

    home: Path
    project: Path
    host: str
    port: int
    prefect_host: str
    prefect_port: int
    external_prefect: str | None
    prefect_ui: str
    worker: WorkerType = WorkerType.SPINE
    prefect_auth: str | None = field(default=None, repr=False)

    @property
    def prefect_api(self) -> str:
        """The base URL of Prefect's API."""
        return self.external_prefect or f"{address(self.prefect_host, self.prefect_port)}/api"

    @property
    def api(self) -> str:
        """The base URL of Spine's API, as seen from this machine."""
        return address(self.host, self.port)


def make_plan(
    home: Path,
    host: str,
    port: int,
    prefect_port: int,
    worker: WorkerType = WorkerType.SPINE,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Decide the addresses; Prefect's own variables for host, API and UI are respected."""
    external = environ.get("PREFECT_API_URL", "").rstrip("/") or None
    prefect_host = environ.get("PREFECT_SERVER_API_HOST") or LOOPBACK
    derived_ui = external.removesuffix("/api") if external else address(prefect_host, prefect_port)
    return Plan(
        home=home.absolute(),
        project=Path.cwd(),
        host=host,
        port=port,
        prefect_host=prefect_host,
        prefect_port=prefect_port,
        external_prefect=external,
        prefect_ui=environ.get("PREFECT_UI_URL") or derived_ui,
        worker=worker,
    )


def address(host: str, port: int) -> str:
    """The URL under which a server bound to `host` is reached from this machine."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (compared, not bound)
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# Every child and its descendants have the home in this variable, by which processes of a killed worker are found.
# Users have no reason to set it, unlike `SPINE_HOME`.
MARKER = "SPINE_UP_CHILD_OF"

# Prefect checks each schedule's time zone against the list of all zones on every read, and Python makes that list by
# opening hundreds of files below the system's folders. The tzdata package has it in one file: a page of 100 deployments
# then takes 45 ms instead of 670.
_ZONES_FROM_PACKAGE = {"PYTHONTZPATH": ""}
_FOR_SERVER = {
    **_ZONES_FROM_PACKAGE,
    # A cancelled run whose worker is gone reads CANCELLED after this time instead of Prefect's five minutes.
    # In each loop the service looks at all runs that were cancelled within a day.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "10",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "30",
}
# Prefect's default is ten seconds, most of what a triggered run would wait for. Events wake a spine worker, which polls
# for what has no event, such as a limit that someone raises. Each poll costs the server as much as a change of state.
_QUERY_SECONDS = {WorkerType.PROCESS: "1", WorkerType.SPINE: "5"}
_FOR_WORKER = {
    # A stop must end within seconds, and the worker reschedules its runs after their processes have ended.
    "SPINE_WORKER_GRACE_SECONDS": "3",
    # A run that has not sent several of these heartbeats, and has no living worker that watches it, is lost. Prefect's
    # own worker passes the setting on to its runs; one of type `spine` sets it by itself.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


SPINE_SECRETS = tuple(variable_of(field) for field in SECRET_FIELDS)
# What only Prefect's server needs, and what may contain a password; names that end in an underscore are prefixes.
PREFECT_SERVER_SECRETS = (
    *("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_"),
    *("PREFECT_SERVER_DOCKET_URL", "PREFECT_REDIS_"),
)


def shared_environment(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of every process of this start, including `spine up` itself."""
    prefect_home = Path(user.get("PREFECT_HOME") or plan.home / "prefect").expanduser().absolute()
    defaults = {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SPINE_WAREHOUSE_URL": str(plan.home / "warehouse"),
        # On a laptop, sources and receivers of alerts are often on the same laptop.
        "SPINE_ALLOW_PRIVATE_ADDRESSES": "true",
        "SPINE_FILE_ROOTS": str(plan.project / "data"),
    }
    if plan.external_prefect is None:
        # The server has the version of this package, so that clients need not ask for it.
        defaults["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"
        if not _may_have_csrf_protection(plan, user):
            defaults["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "false"
    if "PREFECT_LOCAL_STORAGE_PATH" not in user:
        # Flow runs write results and the API reads them, from other working directories: the path is absolute.
        defaults["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(prefect_home / "storage")
    fixed = {
        "PREFECT_API_URL": plan.prefect_api,
        "SPINE_HOME": str(plan.home),
        "SPINE_PROTECTED_ENDPOINTS": ",".join(_protected_endpoints(plan, user)),
        "PYTHONUNBUFFERED": "1",
    }
    if plan.prefect_auth:
        fixed["PREFECT_API_AUTH_STRING"] = plan.prefect_auth
    return {**defaults, **user, **fixed}


def _may_have_csrf_protection(plan: Plan, user: Mapping[str, str]) -> bool:
    """Whether the user may have turned on what Prefect's server does not have by default."""
    variables = (
        *("PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED", "PREFECT_SERVER_CSRF_PROTECTION_ENABLED"),
        # Each can bring a profile with it.
        *("PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_HOME"),
    )
    files = [plan.project / name for name in ("prefect.toml", "pyproject.toml", ".env")]
    return any(user.get(name) for name in variables) or any(
        b"csrf_protection" in file.read_bytes().lower() for file in files if file.is_file()
    )


def _protected_endpoints(plan: Plan, user: Mapping[str, str]) -> list[str]:
    """What the user has set, and the services of this start, which not every process could find out by itself."""
    given = [text.strip() for text in user.get("SPINE_PROTECTED_ENDPOINTS", "").split(",") if text.strip()]
    own = [*endpoints_of_url(plan.api, LISTENER), *endpoints_of_url(plan.prefect_api, PREFECT_API), *endpoints_in(user)]
    return list(dict.fromkeys([*given, *(endpoint.place for endpoint in own)]))


def nursery_environment(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the nursery: what all that it forks have in common, without secrets."""
    return {**_ZONES_FROM_PACKAGE, **_without(_child(plan, user), *SPINE_SECRETS, *PREFECT_SERVER_SECRETS)}


def server_environment(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the Prefect server, which gets nothing of Spine's that is secret."""
    # Only its own UI may use it from a browser, under either name of the loopback.
    origins = {_origin(plan.prefect_ui), *(address(host, plan.prefect_port) for host in (LOOPBACK, "localhost"))}
    given = {**_FOR_SERVER, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(sorted(origins)), **_child(plan, user)}
    if plan.prefect_auth:
        given["PREFECT_SERVER_API_AUTH_STRING"] = plan.prefect_auth
    return _without(given, *SPINE_SECRETS)


def worker_environment(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the worker, of its flow runs and of `prefect deploy`.

    The code of flows gets no secret but the credential of Prefect's API, which each run needs. Spine's own flows read
    theirs from a file (`spine.own_settings`).
    """
    seconds = {"PREFECT_WORKER_QUERY_SECONDS": _QUERY_SECONDS[plan.worker]}
    return {**_FOR_WORKER, **seconds, **_without(_child(plan, user), *SPINE_SECRETS, *PREFECT_SERVER_SECRETS)}


def api_environment(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of Spine's API, which does not get what only Prefect's server needs."""
    return {**_ZONES_FROM_PACKAGE, **_without(_child(plan, user), *PREFECT_SERVER_SECRETS)}


def _origin(url: str) -> str:
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc}"


def _child(plan: Plan, user: Mapping[str, str]) -> dict[str, str]:
    return {**shared_environment(plan, user), MARKER: str(plan.home)}


def _without(environment: dict[str, str], *names: str) -> dict[str, str]:
    prefixes = tuple(name for name in names if name.endswith("_"))
    return {name: value for name, value in environment.items() if name not in names and not name.startswith(prefixes)}


def check_ports(plan: Plan, seconds: float = 0) -> None:
    """Raise `UpError` unless the ports that this start will listen on are free, or become so within these seconds."""
    until = time.monotonic() + seconds
    while True:
        try:
            _check_ports(plan)
        except UpError:
            if time.monotonic() >= until:
                raise
            time.sleep(SECONDS_BETWEEN_CHECKS)
        else:
            return


def _check_ports(plan: Plan) -> None:
    check_port(plan.host, plan.port, "--port", "--host")
    if plan.external_prefect:
        return
    if plan.port == plan.prefect_port:
        raise UpError(f"The API and Prefect cannot share port {plan.port}; change --port or --prefect-port.")
    check_port(plan.prefect_host, plan.prefect_port, "--prefect-port", "PREFECT_SERVER_API_HOST")


def check_port(host: str, port: int, port_option: str, host_option: str) -> None:
    """Raise `UpError`, naming the option to change, unless a server could listen on `host` and `port` now."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: connections of an earlier start that are still closing do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except (socket.gaierror, UnicodeError):
        raise UpError(f"The host {host!r} is not known; choose another with {host_option}.") from None
    except OSError as error:
        raise UpError(_sentence(error, host, port, port_option, host_option)) from None


def _sentence(error: OSError, host: str, port: int, port_option: str, host_option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use; stop the process that uses it or choose another with {port_option}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with {host_option}."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is reserved for the administrator; choose another with {port_option}."
    return f"Port {port} on {host} cannot be used ({error.strerror}); choose another with {port_option}."
