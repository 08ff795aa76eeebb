"""The whole topology, running on loopback."""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from cryptography.fernet import Fernet

from tests.support.processes import PROJECT, free_port, running_program, stop, wait_until
from tests.support.web import WEB
from tests.topology.backends import Backends, Server, backends
from tests.topology.definitions import COMPLETED, DEPLOYMENTS, FOREIGN, Service, services
from tests.up.support import CLEAN

# Containers have these programs on their path, here they are modules of this interpreter.
PROGRAMS = {"python": [], "prefect": ["-m", "prefect"], "spine": ["-m", "spine.cli"]}
SECONDS_TO_START = 180
MOST_STARTS = 5


@dataclass
class Member:
    """One process of a service."""

    service: Service
    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    health: str | None
    process: psutil.Popen | None = None
    starts: int = 0
    _cleanup: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it, also after it has ended."""
        self.starts += 1
        self.process = self._cleanup.enter_context(running_program(self.command, self.environment, self.log))

    def close(self) -> None:
        """End it with all that it has started."""
        self._cleanup.close()

    def answers(self) -> bool:
        """Whether it is healthy; fails with its log if it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} has ended:\n{self.log.read_text()[-3000:]}")
        return self.health is None or is_reachable(self.health)


@dataclass
class Topology:
    """Where everything is."""

    folder: Path
    backends: Backends
    api_url: str
    prefect_url: str
    # For commands of Spine and Prefect, with their secrets.
    environment: dict[str, str]
    members: dict[str, Member]
    # One, or a balancer for each site.
    proxies: list[Server]

    def command(self, *arguments: str, **environment: str) -> str:
        """Run a command as an operator would, or with the environment of a process; gives its output."""
        command = [sys.executable, *PROGRAMS[arguments[0]], *arguments[1:]]
        given = {**CLEAN, **(environment or self.environment)}
        done = subprocess.run(command, env=given, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def topology(folder: Path, disk: Path | None = None, **more: str) -> Iterator[Topology]:
    """All of it, with PostgreSQL's files on this disk, and these settings added for every process."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        servers = cleanup.enter_context(backends(folder, disk))
        plan = _Plan(folder, servers, more)
        cleanup.callback(lambda: _close(plan.members))
        proxies = plan.proxies()
        for proxy in proxies:
            cleanup.callback(proxy.close)
            proxy.start()
        _start(plan)
        # The workers report to Prefect some seconds after they have started.
        ready = f"{plan.url('spine')}/health/ready"
        wait_until(lambda: is_reachable(ready), "everything to be ready", SECONDS_TO_START)
        environment = plan.environment(services()["spine-migrate"], "spine-migrate")
        yield Topology(folder, servers, plan.url("spine"), plan.url("prefect"), environment, plan.members, proxies)


class _Plan:
    """The members with their ports, and how the names in their settings become places on loopback."""

    def __init__(self, folder: Path, servers: Backends, more: dict[str, str]) -> None:
        self._folder, self._more = folder, more
        self._is_small = servers.prefect_url is None
        self.ports = {"prefect": free_port(), "spine": free_port()}
        self._secrets = _secrets(servers)
        self._servers = servers
        self._upstreams: dict[str, list[str]] = {"prefect": [], "spine": []}
        self.members = {
            member.name: member
            for service in services().values()
            if service.name not in FOREIGN and not (self._is_small and self._is_for_redis(service))
            for member in self._members(service)
        }

    def url(self, site: str) -> str:
        """Where the proxy serves this site."""
        return f"http://127.0.0.1:{self.ports[site]}"

    def environment(self, service: Service, name: str) -> dict[str, str]:
        """The settings of a process of a service."""
        found = {key: self._here(value, name) for key, value in service.settings(self._secrets).items()}
        if self._is_small:
            shared = ("PREFECT_MESSAGING", "PREFECT_REDIS", "PREFECT_SERVER_EVENTS", "PREFECT_SERVER_CONCURRENCY")
            alone = (*shared, "PREFECT_SERVER_DOCKET", "PREFECT_SERVER_DATABASE")
            found = {key: value for key, value in found.items() if not key.startswith(alone)}
        elif "PREFECT_REDIS_MESSAGING_PORT" in found:
            place = {"HOST": "127.0.0.1", "PORT": str(self._servers.redis_port)}
            found |= {f"PREFECT_REDIS_MESSAGING_{key}": value for key, value in place.items()}
        return {**found, **self._more}

    def proxies(self) -> list[Server]:
        """The proxy: Caddy with the file of the deployment, or a balancer for each site."""
        caddy = shutil.which("caddy")
        if not caddy:
            return [
                Server(
                    [sys.executable, "-m", "tests.topology.balancer", str(port), *self._upstreams[site]],
                    self._folder / f"proxy-{site}.log",
                    PROJECT,
                )
                for site, port in self.ports.items()
            ]
        sites = {f"{site.upper()}_SITE": f"http://:{port}" for site, port in self.ports.items()}
        upstreams = {f"{site.upper()}_UPSTREAMS": " ".join(places) for site, places in self._upstreams.items()}
        environment = {**sites, **upstreams, "HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder)}
        command = [caddy, "run", "--config", str(DEPLOYMENTS / "proxy" / "Caddyfile"), "--adapter", "caddyfile"]
        return [Server(command, self._folder / "proxy.log", PROJECT, environment)]

    def _is_for_redis(self, service: Service) -> bool:
        """Whether one server on SQLite does without it."""
        return service.name in ("prefect-api-2", "prefect-services", "prefect-migrate")

    def _members(self, service: Service) -> Iterator[Member]:
        for number in range(1, service.replicas + 1):
            name = service.name if service.replicas == 1 else f"{service.name}-{number}"
            command, health = list(service.command), service.health
            if "--port" in command:
                port = free_port()
                given = command[command.index("--port") + 1]
                command[command.index("--port") + 1] = str(port)
                health = health.replace(f":{given}/", f":{port}/") if health else None
                self._upstreams[service.name.partition("-")[0]].append(f"127.0.0.1:{port}")
            if self._is_small and "--no-services" in command:
                command.remove("--no-services")
            command = [self._here(one, name) for one in command]
            (self._folder / "prefect" / name).mkdir(parents=True)
            yield Member(
                service,
                name,
                [sys.executable, *PROGRAMS[command[0]], *command[1:]],
                self.environment(service, name),
                self._folder / f"{name}.log",
                health,
            )

    def _here(self, text: str, name: str) -> str:
        """A value of a setting or of a command, on this machine."""
        places = {
            "prefect-api:4200": f"127.0.0.1:{self.ports['prefect']}",
            "localhost:4200": f"localhost:{self.ports['prefect']}",
            "redis:6379": f"127.0.0.1:{self._servers.redis_port or 6379}",
            "postgres:5432": "127.0.0.1:5432",
            "/var/lib/spine": str(self._folder / "state"),
            "/var/cache/prefect": str(self._folder / "prefect" / name),
            "0.0.0.0": "127.0.0.1",  # noqa: S104 (replaced, not bound)
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text


def _secrets(servers: Backends) -> dict[str, dict[str, str]]:
    """What the files in `secrets` have, by their names."""
    credential = f"spine:{secrets.token_urlsafe(16)}"
    prefect = {"PREFECT_SERVER_API_AUTH_STRING": credential}
    if servers.prefect_url:
        prefect["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = servers.prefect_url
    return {
        "all": {"PREFECT_API_AUTH_STRING": credential},
        "prefect": prefect,
        "spine": {"SPINE_DATABASE_URL": servers.spine_url, "SPINE_SECRET_KEY": Fernet.generate_key().decode()},
    }


def _start(plan: _Plan) -> None:
    """Start each member as soon as what it waits for is there."""
    waiting, completed = list(plan.members.values()), set[str]()
    conditions = {one: how for member in waiting for one, how in member.service.after.items()}

    def is_there(name: str, condition: str) -> bool:
        if name in FOREIGN:
            return all(is_there(*each) for each in services()[name].after.items())
        of_service = [member for member in plan.members.values() if member.service.name == name]
        if condition == COMPLETED:
            return all(member.name in completed for member in of_service)
        return all(member.process is not None and member.answers() for member in of_service)

    def advance() -> bool:
        for member in plan.members.values():
            if member.process is not None and conditions.get(member.service.name) == COMPLETED:
                _complete(member, completed)
        for member in [one for one in waiting if all(is_there(*each) for each in one.service.after.items())]:
            member.start()
            waiting.remove(member)
        lasting = [one for one in plan.members.values() if conditions.get(one.service.name) != COMPLETED]
        return not waiting and all(member.answers() for member in lasting)

    wait_until(advance, "the topology to start", SECONDS_TO_START)


def _complete(member: Member, completed: set[str]) -> None:
    """See whether a command has ended, and start it again if it has failed, as Compose does."""
    assert member.process is not None
    status = member.process.poll()
    if status == 0:
        completed.add(member.name)
    elif status is not None:
        assert member.starts < MOST_STARTS, f"{member.name} fails:\n{member.log.read_text()[-3000:]}"
        member.start()


def is_reachable(url: str) -> bool:
    """Whether a GET of this URL succeeds."""
    try:
        return WEB.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _close(members: dict[str, Member]) -> None:
    """End everything, workers before what they report to."""
    for member in reversed(members.values()):
        if member.process is not None:
            stop(member.process)
    for member in members.values():
        member.close()
