"""What all drivers have in common."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import format_tb
from typing import Any, Protocol

import pyarrow as pa
import structlog

from spine.connections.resolved_connection import ConnectionTarget
from spine.egress.addresses import address_refusal
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guard import guarded
from spine.schemas import ErrorCategory

SECONDS_TO_CONNECT = 30.0
log = structlog.get_logger("spine.connections")


@dataclass(frozen=True)
class Column:
    """A column of a result; `type` is None where the driver does not tell, so that it is told from the first rows."""

    name: str
    type: pa.DataType | None


class Rows(Protocol):
    """The rows of a query, as they come from the server."""

    columns: Sequence[Column]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """The next rows, as many as this, or all that are left. Raises what the driver raises."""


class Session(Protocol):
    """One connection that can only read. Its methods raise what the driver raises; `explain` tells what that means."""

    def probe(self) -> str:
        """Run a trivial query and give the name and version of the server."""

    def select(self, query: str) -> Rows:
        """Begin a query over a server-side cursor in a read-only transaction."""

    def abort(self) -> None:
        """End whatever a thread waits for on this connection; called from another one."""

    def close(self) -> None:
        """Let go of the connection; safe to repeat."""


class Driver(Protocol):
    """Opens sessions on one type of database."""

    def connect(self, target: ConnectionTarget, seconds: float) -> Session:
        """Connect within so many seconds, by checked addresses, with the TLS that the target asks for.

        Raises `FetchFailure`.
        """

    def explain(self, target: ConnectionTarget, error: Exception) -> FetchFailure | None:
        """What an error of this driver means; None for one that is not its own."""


@contextmanager
def explained(driver: Driver, target: ConnectionTarget) -> Iterator[None]:
    """Translate the errors of a driver into `FetchFailure`, without the secrets that they may repeat."""
    try:
        yield
    except FetchFailure:
        raise
    except UnicodeDecodeError:
        sentence = f"The database {target.name} sent text that is not in UTF-8; convert it in the query."
        raise FetchFailure(ErrorCategory.SOURCE, sentence) from None
    except Exception as error:
        raise driver.explain(target, error) or _broke(target, error) from None


def _broke(target: ConnectionTarget, error: Exception) -> FetchFailure:
    """What a driver did not foresee, without its message, of which nobody knows what it repeats."""
    kind = type(error).__name__
    log.error("driver_broke", connection=target.name, kind=kind, where="".join(format_tb(error.__traceback__)))
    return FetchFailure(ErrorCategory.SOURCE, f"The driver of the database {target.name} failed with {kind}.")


def abort_after(seconds: float, abort: Callable[[], None]) -> threading.Timer:
    """A clock, already started, that ends what another thread waits for. `cancel` stops it."""
    timer = threading.Timer(min(max(seconds, 0.0), threading.TIMEOUT_MAX), abort)
    timer.daemon = True
    timer.start()
    return timer


def connected(driver: Driver, target: ConnectionTarget, seconds: float) -> Session:
    """A session whose work may take so many seconds, and connecting `SECONDS_TO_CONNECT` of them at most.

    Raises `FetchFailure` and what the driver raises.
    """
    most = min(seconds, SECONDS_TO_CONNECT)
    began = time.monotonic()
    with guarded(target.allow_private) as guard:
        # Some drivers wait for ever for what a server says first.
        clock = abort_after(most, guard.abort)
        try:
            return driver.connect(target, seconds)
        except Exception:
            if time.monotonic() - began < most:
                raise
            sentence = f"The database {target.name} could not be connected to within {most:g} s."
            raise FetchFailure(ErrorCategory.NETWORK, sentence, transient=True) from None
        finally:
            clock.cancel()


def checked_addresses(target: ConnectionTarget) -> list[str]:
    """The addresses of the target's host, all of which may be connected to.

    For drivers that connect in C, where no guard sees the address. Raises `FetchFailure`.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError:
        raise FetchFailure(ErrorCategory.NETWORK, f"The host {target.host} cannot be found.", transient=True) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if (reason := address_refusal(address, target.allow_private)) is not None:
            raise FetchFailure(ErrorCategory.CONFIG, f"{target.host} cannot be connected to: {reason}.")
    return addresses


def tls_context(target: ConnectionTarget) -> ssl.SSLContext:
    """The TLS that `ssl_mode` asks for, other than `disable`. Raises `FetchFailure` for a certificate that is none."""
    context = ssl.create_default_context()
    if target.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=target.ca)
        except (ssl.SSLError, ValueError):
            raise FetchFailure(ErrorCategory.CONFIG, "What ssl_cert_ref names is no certificate in PEM.") from None
    context.check_hostname = target.ssl_mode == "verify-full"
    if target.ssl_mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def system_authorities() -> str:
    """The file with the certificates of the authorities that this machine trusts."""
    import certifi

    found = ssl.get_default_verify_paths().cafile
    return found if found and Path(found).is_file() else certifi.where()


def missing_package(extra: str, package: str) -> FetchFailure:
    """The driver is not installed."""
    sentence = f"The package {package} is not installed where this runs; install prefect-spine[{extra}]."
    return FetchFailure(ErrorCategory.CONFIG, sentence)
