"""The interface of the drivers, and what they share."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_tb
from typing import Any, Protocol

import pyarrow as pa
import structlog

from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.addresses import address_refusal
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guard import guarded
from spine.egress.own_services import connection_refusal
from spine.egress.tls import modern
from spine.schemas import ErrorCategory
from spine.text import on_one_line, shortened

SECONDS_TO_CONNECT = 30.0
# In a message.
_LONGEST_VALUE = 40
log = structlog.get_logger("spine.connections")


@dataclass(frozen=True)
class Column:
    """A column of a result; `type` is None if the driver does not report it: the first rows then determine it.

    `type_without_values` is the type if none of them has a value.
    """

    name: str
    type: pa.DataType | None
    type_without_values: pa.DataType = field(default_factory=pa.null)


class Rows(Protocol):
    """The rows of a query, as the server sends them."""

    columns: Sequence[Column]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """The next `count` rows, or the remaining ones. Raises what the driver raises."""


class Session(Protocol):
    """One read-only session. Its methods raise the errors of the driver, which `Driver.translate` explains."""

    def probe(self) -> str:
        """Run a trivial query and return the name and version of the server."""

    def excess_rights(self) -> list[str]:
        """What the user may do beyond reading tables, as ends of the sentence "the user ..."."""

    def select(self, query: str) -> Rows:
        """Start a query with a server-side cursor in a read-only transaction."""

    def abort(self) -> None:
        """End any wait of another thread on this connection."""

    def close(self) -> None:
        """Close the connection; safe to repeat."""


class Driver(Protocol):
    """Opens sessions on one type of database."""

    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        """Connect within so many seconds, only to allowed addresses, with the TLS of `ssl_mode`.

        Raises `FetchFailure`.
        """

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        """The failure for an error of this driver; None for any other error."""


@contextmanager
def translated_errors(driver: Driver, target: ResolvedConnection) -> Iterator[None]:
    """Translate the errors of a driver into `FetchFailure`, without the secrets that their texts may contain."""
    try:
        yield
    except FetchFailure:
        raise
    except UnicodeDecodeError:
        sentence = f"The database {target.name} sent text that is not valid UTF-8; convert it in the query."
        raise FetchFailure(ErrorCategory.SOURCE, sentence) from None
    except Exception as error:
        raise driver.translate(target, error) or _unexpected(target, error) from None


def not_representable(column: Column, value: str) -> FetchFailure:
    """The failure for a value that only this database has, such as the date "infinity"."""
    shown = on_one_line(shortened(value, _LONGEST_VALUE))
    sentence = f"The column {column.name!r} has the value {shown!r}, which cannot be stored; cast it in the query."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def _unexpected(target: ResolvedConnection, error: Exception) -> FetchFailure:
    """The failure for an unexpected error, without its message, which may contain a secret."""
    kind = type(error).__name__
    log.error(
        "driver_failed_unexpectedly",
        connection=target.name,
        error=kind,
        traceback="".join(format_tb(error.__traceback__)),
    )
    return FetchFailure(ErrorCategory.SOURCE, f"The driver of the database {target.name} failed with {kind}.")


def abort_after(seconds: float, abort: Callable[[], None]) -> threading.Timer:
    """A running timer that calls `abort` after so many seconds, unless it is cancelled."""
    timer = threading.Timer(min(max(seconds, 0.0), threading.TIMEOUT_MAX), abort)
    timer.daemon = True
    timer.start()
    return timer


def open_session(driver: Driver, target: ResolvedConnection, seconds: float) -> Session:
    """A session for work of at most so many seconds, of which connecting takes at most `SECONDS_TO_CONNECT`.

    Raises `FetchFailure` and what the driver raises.
    """
    limit = min(seconds, SECONDS_TO_CONNECT)
    started = time.monotonic()
    with guarded(target.allow_private) as guard:
        # Some drivers wait without a limit for the first message of the server.
        timer = abort_after(limit, guard.abort)
        try:
            return driver.connect(target, seconds)
        except Exception:
            if time.monotonic() - started < limit:
                raise
            sentence = f"Cannot connect to the database {target.name} within {limit:g} s."
            raise FetchFailure(ErrorCategory.NETWORK, sentence, transient=True) from None
        finally:
            timer.cancel()


def allowed_addresses(target: ResolvedConnection) -> list[str]:
    """The addresses of the host, for drivers that connect in C, which the guard does not see.

    Raises `FetchFailure` if one of them is not allowed.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError:
        raise FetchFailure(
            ErrorCategory.NETWORK, f"The host name {target.host} does not resolve.", transient=True
        ) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        database = target.database if target.db_type == "postgresql" else None
        own = connection_refusal(address, target.port, database)
        if (reason := address_refusal(address, target.allow_private) or own) is not None:
            raise FetchFailure(ErrorCategory.CONFIG, f"Cannot connect to {target.host}: {reason}.")
    return addresses


def tls_context(target: ResolvedConnection) -> ssl.SSLContext:
    """The TLS settings of any `ssl_mode` but `disable`. Raises `FetchFailure` for an invalid certificate."""
    context = modern(ssl.create_default_context())
    if target.ca is not None:
        context = modern(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        try:
            context.load_verify_locations(cadata=target.ca)
        except (ssl.SSLError, ValueError):
            raise FetchFailure(ErrorCategory.CONFIG, "ssl_cert_ref does not point to a PEM certificate.") from None
    context.check_hostname = target.ssl_mode == "verify-full"
    if target.ssl_mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def system_ca_file() -> str:
    """The file of the certificate authorities that this machine trusts."""
    import certifi

    found = ssl.get_default_verify_paths().cafile
    return found if found and Path(found).is_file() else certifi.where()


def missing_package(extra: str, package: str) -> FetchFailure:
    """The failure for a driver that is not installed."""
    sentence = f"The package {package} is not installed on this machine; install prefect-spine[{extra}]."
    return FetchFailure(ErrorCategory.CONFIG, sentence)
