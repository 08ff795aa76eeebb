"""A real SFTP server on loopback that shows one folder, in a thread of its own."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from spine.sources.readers.base import Reader

from tests.sources.readers.support import OPEN, config_of, limits

USER, PASSWORD = "desk", "s3cr3t-of-desk"


@dataclass
class SftpServer:
    """A running server, its public key, and how it behaves."""

    folder: Path
    host_key: asyncssh.SSHKey
    user_key: asyncssh.SSHKey
    port: int = 0
    logins: list[str] = field(default_factory=list)
    # While it is set, a request to read is never answered.
    hangs: threading.Event = field(default_factory=threading.Event)
    # The most bytes that one answer carries.
    longest_read: int = 1 << 20
    accepts_passwords: bool = True
    accepts_keys: bool = True

    @property
    def public_key(self) -> str:
        """As OpenSSH writes it."""
        return self.host_key.export_public_key().decode().strip()

    @property
    def fingerprint(self) -> str:
        return self.host_key.get_fingerprint()


def _logins_of(made: SftpServer) -> type[asyncssh.SSHServer]:
    class Logins(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            made.logins.append(username)
            return True

        def password_auth_supported(self) -> bool:
            return made.accepts_passwords

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

        def public_key_auth_supported(self) -> bool:
            return made.accepts_keys

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return username == USER and key == made.user_key.convert_to_public()

    return Logins


def _files_of(made: SftpServer) -> type[asyncssh.SFTPServer]:
    class Files(asyncssh.SFTPServer):
        def __init__(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
            super().__init__(chan, chroot=os.fsencode(made.folder))

        async def read(self, file_obj: object, offset: int, size: int) -> bytes:
            if made.hangs.is_set():
                await asyncio.sleep(3600)
            part = super().read(file_obj, offset, min(size, made.longest_read))
            assert isinstance(part, bytes)
            return part

    return Files


@contextmanager
def sftp_server(
    folder: Path,
    key_type: str = "ssh-ed25519",
    *,
    other_key_types: Sequence[str] = (),
    keepalive_seconds: float = 0,
    **algorithms: Any,
) -> Iterator[SftpServer]:
    """A server of `folder` with new keys, which disconnects clients that do not answer two keepalive requests.

    `algorithms` are arguments of asyncssh, such as `kex_algs`: all that the server has.
    """
    made = SftpServer(folder, asyncssh.generate_private_key(key_type), asyncssh.generate_private_key("ssh-ed25519"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[made.host_key, *map(asyncssh.generate_private_key, other_key_types)],
            keepalive_interval=keepalive_seconds,
            keepalive_count_max=2,
            server_factory=_logins_of(made),
            sftp_factory=_files_of(made),
            **algorithms,
        )

    async def stop() -> None:
        acceptor.close()
        await acceptor.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    acceptor = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    made.port = acceptor.get_port()
    try:
        yield made
    finally:
        made.hangs.clear()
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def reader(
    server: SftpServer, path: str, *, seconds: float = 60, max_bytes: int | None = None, **fields: str
) -> Reader:
    given = {"host": "127.0.0.1", "port": server.port, "username": USER, "host_key": server.public_key, "path": path}
    login = {} if "private_key_ref" in fields else {"password_ref": "env:PW"}
    secrets = {"password_ref": PASSWORD, "private_key_ref": server.user_key.export_private_key().decode()}
    config = config_of("sftp", **{**given, **login, **fields})
    return config.open_reader({name: secrets[name] for name in config.secret_refs()}, OPEN, limits(max_bytes, seconds))
