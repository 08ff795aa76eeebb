"""The services of Spine itself, which no address that a user names may reach, whatever the settings allow.

These are its own listener, Prefect's API, the databases of both, Redis and Vault. They are compared by the address of a
connection and not by its name, so other names, other notations and other addresses of the same machine are refused too.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from spine.egress.addresses import Address, addresses_in, parse_host
from spine.settings import Settings

SECONDS_RESOLVED = 30.0
LISTENER = "Spine's API"
PREFECT_API = "Prefect's API"
DATABASE = "Spine's database"
# The bytes of a name that PostgreSQL compares.
_LONGEST_DATABASE_NAME = 63
_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql": 5432, "postgres": 5432}
# Many other sites share the addresses of these.
_SHARED_HOSTS = (".prefect.cloud",)


@dataclass(frozen=True)
class Endpoint:
    """The host name or address of a service, and its port. `database` is its name in a PostgreSQL server."""

    host: str
    port: int
    service: str
    database: str | None = None

    @property
    def place(self) -> str:
        """The `host:port` that `parse_endpoint` reads."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_protected: list[Endpoint] = []
_resolved: dict[str, tuple[float, frozenset[Address]]] = {}


@contextmanager
def protected(endpoints: Iterable[Endpoint]) -> Iterator[None]:
    """Refuse these in the whole process while the block runs."""
    added = list(endpoints)
    _protected.extend(added)
    try:
        yield
    finally:
        for endpoint in added:
            _protected.remove(endpoint)


def protected_now() -> tuple[Endpoint, ...]:
    """What is refused in this process, for another process that connects on its behalf."""
    return tuple(_protected)


class Listeners:
    """The addresses at which this process is found to listen; known from the requests that arrive there."""

    def __init__(self) -> None:
        self._found: set[Endpoint] = set()

    def add(self, host: str, port: int) -> None:
        """Refuse connections to this listener from now on."""
        endpoint = Endpoint(host, port, LISTENER)
        if endpoint not in self._found:
            self._found.add(endpoint)
            _protected.append(endpoint)

    def close(self) -> None:
        """Forget them; others may use their ports now."""
        while self._found:
            _protected.remove(self._found.pop())


def connection_refusal(address: str, port: int, database: str | None = None) -> str | None:
    """The reason why no user may connect to this IP address and port; None if no service of Spine is there.

    `database` is the one that a PostgreSQL client will open: others of the same server are not Spine's.
    """
    candidates = [one for one in _protected if one.port == port]
    if not candidates:
        return None
    every = addresses_in(address)
    for endpoint in candidates:
        if _is_other_database(endpoint, database) or not _is_at(endpoint, every):
            continue
        return f"{address} port {port} is {endpoint.service}, a service of Spine itself, which is never allowed"
    return None


def endpoint_refusal(host: str, port: int | None, database: str | None = None) -> str | None:
    """The reason why a host and port that a user configures are refused, as far as it shows without resolving a name.

    Any other name is checked by the address that is connected to.
    """
    if port is None:
        return None
    if (literal := parse_host(host)) is not None:
        return connection_refusal(str(literal), port, database)
    name = _normal(host)
    for endpoint in _protected:
        if endpoint.port == port and _normal(endpoint.host) == name and not _is_other_database(endpoint, database):
            return f"{host} port {port} is {endpoint.service}, a service of Spine itself, which is never allowed"
    return None


def proxied_refusal(host: str, port: int) -> str | None:
    """The reason why a proxy may not be used for this host and port, as far as this machine can resolve the name."""
    if not any(one.port == port for one in _protected):
        return None
    if refusal := endpoint_refusal(host, port):
        return refusal
    found = (connection_refusal(str(address), port) for address in _addresses_of(host))
    return next((reason for reason in found if reason), None)


def own_endpoints(settings: Settings, prefect_api: str | None, environ: Mapping[str, str]) -> list[Endpoint]:
    """The services of Spine as far as its settings, those of Prefect and the environment name them."""
    found = [parse_endpoint(text) for text in settings.protected_endpoints]
    if settings.database_url is not None:
        found += endpoints_of_url(settings.database_url.get_secret_value(), DATABASE)
    return [*found, *endpoints_of_url(prefect_api or "", PREFECT_API), *endpoints_in(environ)]


def endpoints_in(environ: Mapping[str, str]) -> list[Endpoint]:
    """The services that an environment names besides those in `Settings`."""
    urls = {
        "PREFECT_API_URL": PREFECT_API,
        "PREFECT_UI_API_URL": PREFECT_API,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "Prefect's database",
        "PREFECT_API_DATABASE_CONNECTION_URL": "Prefect's database",
        "PREFECT_SERVER_DOCKET_URL": "Prefect's Redis",
        "PREFECT_REDIS_MESSAGING_URL": "Prefect's Redis",
        "VAULT_ADDR": "the secret store",
    }
    found = [one for name, service in urls.items() for one in endpoints_of_url(environ.get(name, ""), service)]
    if host := environ.get("PREFECT_REDIS_MESSAGING_HOST"):
        found.append(Endpoint(host, _number(environ.get("PREFECT_REDIS_MESSAGING_PORT"), 6379), "Prefect's Redis"))
    return found


def endpoints_of_url(url: str, service: str) -> list[Endpoint]:
    """The hosts and ports of a URL, also of a database; empty for a URL without a host, as that of a SQLite file is."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.partition("+")[0].lower()
        places = parts.netloc.rpartition("@")[2].split(",")
    except ValueError:
        return []
    if scheme not in _PORTS:
        return []
    query = parse_qsl(parts.query)
    options = dict(query)
    is_database = scheme.startswith("postgres")
    if is_database:
        places = [unquote(place) for place in places]
        places += [place for name, value in query if name in ("host", "hostaddr") for place in value.split(",")]
    database = (parts.path.strip("/") or options.get("dbname")) if is_database else None
    default = _number(options.get("port", "").partition(",")[0], _PORTS[scheme])
    # A server that is reached over a Unix socket listens on the loopback too, by default.
    hosts = [_host_and_port(place, default) for place in places if place] or [("localhost", default)]
    return [Endpoint("localhost" if host.startswith("/") else host, port, service, database) for host, port in hosts]


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint in the `host:port` of a setting."""
    host, _, port = text.rpartition(":")
    return Endpoint(host.strip("[]"), int(port), "a protected endpoint")


def _host_and_port(place: str, default: int) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if place.startswith("/") or not host or not port.isdecimal():
        return place.strip("[]"), default
    return host.strip("[]"), int(port)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default


def _normal(host: str) -> str:
    return host.lower().rstrip(".")


def _is_other_database(endpoint: Endpoint, database: str | None) -> bool:
    if database is None or endpoint.database is None:
        return False
    one, other = (name.encode()[:_LONGEST_DATABASE_NAME] for name in (database, endpoint.database))
    return one != other


def _is_at(endpoint: Endpoint, every: Iterable[Address]) -> bool:
    if _normal(endpoint.host).endswith(_SHARED_HOSTS):
        return False
    found = _addresses_of(endpoint.host)
    if any(address in found for address in every):
        return True
    return any(_is_local(address) for address in every) and any(_is_local(address) for address in found)


def _addresses_of(host: str) -> frozenset[Address]:
    known = _resolved.get(host)
    if known is not None and time.monotonic() - known[0] < SECONDS_RESOLVED:
        return known[1]
    with suppress(OSError, UnicodeError):
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        addresses = frozenset(one for text in found for one in addresses_in(text))
        _resolved[host] = (time.monotonic(), addresses)
        return addresses
    # While a name does not resolve, its last addresses count.
    return known[1] if known is not None else frozenset()


def _is_local(address: Address) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
