"""Why there is no TLS connection, in HTTP, S3 and the databases: the reason is named, and tried once."""

import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import trustme
from spine.egress.fetch_failure import FetchFailure

from tests.connections.misbehaving import serving
from tests.connections.support import failure as failure_of_query
from tests.connections.support import target
from tests.sources.readers.support import OPEN, config_of, failure, limits

AUTHORITY = trustme.CA()
PEM = AUTHORITY.cert_pem.bytes().decode()
Answer = Callable[[socket], Any]
# The beginning of MySQL's protocol, with TLS among the capabilities.
_CAPABILITIES = 0x0000_8A00 | 0x0008_0000
GREETING = b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"saltsalt\0" + struct.pack("<H", _CAPABILITIES & 0xFFFF)
GREETING += struct.pack("<BHHB", 45, 2, _CAPABILITIES >> 16, 21) + bytes(10) + b"saltsaltsalt\0mysql_native_password\0"


def tls(certificate: trustme.LeafCert, **settings: Any) -> Answer:
    """A server that does the handshake and nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in settings.items():
        context.set_ciphers(value) if name == "ciphers" else setattr(context, name, value)

    def answer(connection: socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(100)

    return answer


def expired() -> Answer:
    past = [datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2021)]
    return tls(AUTHORITY.issue_cert("127.0.0.1", not_before=past[0], not_after=past[1]))


def outdated() -> Answer:
    certificate = AUTHORITY.issue_cert("127.0.0.1")
    # The ciphers first, because OpenSSL allows the old version only with weak ones.
    return tls(certificate, ciphers="ALL:@SECLEVEL=0", minimum_version=769, maximum_version=770)


def plain() -> Answer:
    def answer(connection: socket) -> None:
        connection.recv(10)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    return answer


# The server, and a part of the sentence of HTTP and S3, PostgreSQL, and MySQL.
REASONS: dict[str, tuple[Callable[[], Answer], str, str, str]] = {
    "expired": (
        expired,
        "not trusted: certificate has expired",
        "certificate verify failed",
        "certificate has expired",
    ),
    "another host": (
        lambda: tls(AUTHORITY.issue_cert("elsewhere.example.com")),
        "IP address mismatch",
        "does not match host name",
        "IP address mismatch",
    ),
    "outdated": (outdated, "no version of TLS that Spine accepts", "protocol version", "protocol version"),
    "plain": (plain, "it does not speak TLS at this port", "wrong version number", "wrong version number"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("why", REASONS)
def test_the_reason_is_named(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text(PEM)
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority))
    start, of_http, of_postgresql, of_mysql = REASONS[why]
    answer = start()
    with serving(answer) as port:
        https = {"url": f"https://127.0.0.1:{port}/x"}
        store = {"bucket": "desk", "key": "k", "endpoint_url": f"https://127.0.0.1:{port}", "region": "eu"}
        for kind, fields in (("http", https), ("s3", store)):
            check(failure(config_of(kind, **fields).open_reader({}, OPEN, limits())), of_http, "NETWORK")

    def of_a_postgresql(connection: socket) -> None:
        connection.recv(8)
        connection.sendall(b"S")
        answer(connection)

    def of_a_mysql(connection: socket) -> None:
        connection.sendall(struct.pack("<I", len(GREETING)) + GREETING)
        connection.recv(36)
        answer(connection)

    for db_type, beginning, reason in (
        ("postgresql", of_a_postgresql, of_postgresql),
        ("mysql", of_a_mysql, of_mysql),
    ):
        with serving(beginning) as port:
            secure = target(db_type=db_type, port=port, ssl_mode="verify-full", ca=PEM, username="u", password="s3cr3t")
            check(failure_of_query(secure, "SELECT 1"), reason, "CONFIG")


def check(failed: FetchFailure, reason: str, category: str) -> None:
    assert reason in failed.sentence, failed.sentence
    assert (failed.category, failed.transient) == (category, False), failed.sentence
    assert "s3cr3t" not in failed.sentence


@pytest.mark.parametrize(
    ("db_type", "reason"), [("postgresql", "expected authentication"), ("mysql", "Packet sequence")]
)
def test_a_server_of_another_protocol_is_not_tried_again(db_type: str, reason: str) -> None:
    with serving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        check(failure_of_query(target(db_type=db_type, port=port), "SELECT 1"), reason, "CONFIG")


@pytest.mark.parametrize("db_type", ["postgresql", "mysql"])
def test_a_server_that_closes_the_connection_is_tried_again(db_type: str) -> None:
    with serving(lambda connection: connection.close()) as port:
        for mode in ("verify-full", "disable"):
            failed = failure_of_query(target(db_type=db_type, port=port, ssl_mode=mode), "SELECT 1")
            assert (failed.category, failed.transient) == ("NETWORK", True), failed.sentence
