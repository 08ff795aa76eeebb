"""A PostgreSQL and a Redis of the topology's own, from the programs of this machine where it has them."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import psycopg
import redis

from tests.support.postgres import fresh_database, postgresql_server
from tests.support.processes import free_port, running_program, wait_until
from tests.topology.definitions import compose, services

PASSWORD = "a-password-of-the-tests"


@dataclass
class Server:
    """A program that can be killed and started again."""

    command: list[str]
    log: Path
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: psutil.Popen | None = None
    _cleanup: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it, also after it has ended."""
        self.process = self._cleanup.enter_context(running_program(self.command, self.environment, self.log, self.cwd))

    def kill(self) -> None:
        """End it without notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, however often it was started."""
        self._cleanup.close()


@dataclass
class Backends:
    """Where the servers are; without a PostgreSQL for Prefect and a Redis there is one Prefect server, on SQLite."""

    spine_url: str
    prefect_url: str | None = None
    redis_port: int | None = None
    postgresql: Server | None = None
    redis: Server | None = None


@contextmanager
def backends(folder: Path, disk: Path | None = None) -> Iterator[Backends]:
    """Private servers, with PostgreSQL's files on this disk, or the embedded PostgreSQL of the tests."""
    with ExitStack() as cleanup:
        if not (postgresql_program("postgres") and shutil.which("redis-server")):
            server = cleanup.enter_context(postgresql_server(folder / "postgresql"))
            yield Backends(cleanup.enter_context(fresh_database(server)))
            return
        place, postgresql = cleanup.enter_context(_private_postgresql(folder, disk))
        redis_port, redis_process = cleanup.enter_context(private_redis(folder))
        urls = f"postgresql://{place}/spine", f"postgresql+asyncpg://{place}/prefect"
        yield Backends(*urls, redis_port, postgresql, redis_process)


@cache
def postgresql_program(name: str) -> str | None:
    """The newest program of PostgreSQL with this name, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def _private_postgresql(folder: Path, disk: Path | None) -> Iterator[tuple[str, Server]]:
    """The credential, host and port of a new server with the databases of Compose, and its process."""
    user = _unprivileged_user()
    data = Path(tempfile.mkdtemp(prefix="spine-topology-", dir=disk))
    if user:
        shutil.chown(data, user)
    password = data / "password"
    password.write_text(PASSWORD)
    if user:
        shutil.chown(password, user)
    init = [
        str(postgresql_program("initdb")),
        "-D",
        str(data / "data"),
        "-U",
        "spine",
        "-A",
        "scram-sha-256",
    ]
    subprocess.run([*init, f"--pwfile={password}"], user=user, check=True, capture_output=True, cwd=data)
    port = free_port()
    options = ["-D", str(data / "data"), "-h", "127.0.0.1", "-k", "", "-p", str(port), "-c", "fsync=off"]
    # The options of Compose, and none of its disk's.
    command = [str(postgresql_program("postgres")), *options, *services()["postgres"].command[1:]]
    prefix = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
    server = Server([*prefix, *command], folder / "postgresql.log", data)
    server.start()
    try:
        place = f"spine:{PASSWORD}@127.0.0.1:{port}"
        wait_until(lambda: _answers(f"postgresql://{place}/postgres"), "PostgreSQL to start", 30)
        with psycopg.connect(f"postgresql://{place}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE spine")
            connection.execute(compose()["configs"]["databases"]["content"])
        yield place, server
    finally:
        server.close()
        shutil.rmtree(data, ignore_errors=True)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def private_redis(folder: Path, *options: str) -> Iterator[tuple[int, Server]]:
    """The port of a new server with the options of Compose, or with these, and its process."""
    port = free_port()
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command = ["redis-server", *(options or services()["redis"].command[1:]), *where]
    server = Server(command, folder / "redis.log", folder)
    server.start()

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        wait_until(answers, "Redis to start", 30)
        yield port, server
    finally:
        server.close()
