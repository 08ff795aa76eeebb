"""No address that a user names reaches a service of Spine itself, whatever name or notation it has."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from spine.connections.drivers.base import allowed_addresses
from spine.egress.fetch_failure import FetchFailure
from spine.egress.guard import guarded
from spine.egress.http_replies import recorded_replies
from spine.egress.own_services import (
    Endpoint,
    Listeners,
    connection_refusal,
    endpoint_refusal,
    endpoints_in,
    endpoints_of_url,
    own_endpoints,
    protected,
)
from spine.settings import Settings
from spine.up.plan import make_plan, shared_environment

from tests.connections.support import target
from tests.support.receivers import Receiver, receiver

NOTATIONS = [
    *("127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1"),
    *(
        "0177.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "127。0。0。1",
        "①27.0.0.1",
    ),
]


@pytest.fixture
def service() -> Iterator[Receiver]:
    """A server of Spine's own on the loopback."""
    with receiver() as made, protected([Endpoint("localhost", made.port, "Prefect's API")]):
        yield made


def addresses_of_this_machine() -> list[str]:
    """Its addresses on real interfaces, as far as a route to elsewhere shows them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


@pytest.mark.parametrize("host", NOTATIONS)
def test_every_notation_of_its_address_is_refused(service: Receiver, host: str) -> None:
    assert "Prefect's API" in (endpoint_refusal(host.strip("[]"), service.port) or "")
    with guarded(allow_private=True) as guard, pytest.raises((requests.RequestException, OSError)):
        requests.get(f"http://{host}:{service.port}/api/admin/version", timeout=5)
    assert guard.refused is None or "a service of Spine itself" in guard.refused
    assert service.requests == []


def test_other_addresses_of_the_machine_and_names_that_resolve_to_them_are_refused(
    service: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    for address in ("127.0.0.1", "127.0.0.77", *addresses_of_this_machine()):

        def resolve(host: str, *rest: Any, to: str = address, **more: Any) -> Any:
            return real(to if host == "innocent.test" else host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with guarded(allow_private=True) as guard, pytest.raises(requests.ConnectionError):
            requests.get(f"http://innocent.test:{service.port}/", timeout=5)
        assert "Prefect's API" in (guard.refused or "")
        assert connection_refusal(address, service.port)
    assert service.requests == []


def test_other_ports_and_other_machines_stay_open(service: Receiver) -> None:
    with receiver() as other, guarded(allow_private=True):
        assert requests.get(other.url, timeout=5).status_code == 200
    assert connection_refusal("192.0.2.7", service.port) is None
    assert endpoint_refusal("example.com", service.port) is None
    assert endpoint_refusal("127.0.0.1", None) is None


def test_a_redirect_to_it_is_refused(service: Receiver) -> None:
    with receiver() as site, guarded(allow_private=True) as guard:
        site.always = lambda handler: handler.answer(302, b"", {"Location": f"{service.url}/api/deployments/"})
        with pytest.raises(requests.ConnectionError):
            requests.get(site.url, timeout=5)
        assert "Prefect's API" in (guard.refused or "")
    assert service.requests == []


async def test_spine_itself_reaches_it(service: Receiver) -> None:
    async with httpx.AsyncClient(timeout=5) as client:
        assert (await client.get(service.url)).status_code == 200


def test_it_is_open_again_when_the_block_ends() -> None:
    with protected([Endpoint("127.0.0.1", 4200, "x")]), protected([Endpoint("127.0.0.1", 4200, "x")]):
        pass
    assert connection_refusal("127.0.0.1", 4200) is None


def test_a_listener_on_all_addresses_is_refused_at_each_of_them_until_it_is_closed() -> None:
    listeners = Listeners()
    for _ in range(2):
        listeners.add("0.0.0.0", 8000)  # noqa: S104 (nothing is bound)
    for address in ("127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", *addresses_of_this_machine()):
        assert "Spine's API" in (connection_refusal(address, 8000) or "")
    listeners.close()
    assert connection_refusal("127.0.0.1", 8000) is None


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:4200/api", [("127.0.0.1", 4200, None)]),
        ("https://prefect.example.com/api", [("prefect.example.com", 443, None)]),
        ("http://[::1]:4200/api", [("::1", 4200, None)]),
        ("postgresql://u:p%40w@db/spine", [("db", 5432, "spine")]),
        ("postgresql+asyncpg://u:p@w@db:6432/spine?ssl=require", [("db", 6432, "spine")]),
        ("postgresql://u@a:1,b:2/spine", [("a", 1, "spine"), ("b", 2, "spine")]),
        ("postgresql:///spine?host=/var/run/postgresql", [("localhost", 5432, "spine")]),
        ("postgresql://u@%2Fvar%2Frun/spine?port=5433", [("localhost", 5433, "spine")]),
        ("postgresql:///spine?host=a:1&host=b", [("a", 1, "spine"), ("b", 5432, "spine")]),
        ("redis://cache:6380/1", [("cache", 6380, None)]),
        *(("sqlite+aiosqlite:////srv/prefect.db", []), ("", []), ("http://[", []), ("memory://", [])),
    ],
)
def test_the_places_in_a_url_are_found(url: str, found: list[tuple[str, int, str | None]]) -> None:
    assert [(one.host, one.port, one.database) for one in endpoints_of_url(url, "x")] == found


def test_the_environment_and_the_settings_name_what_is_protected(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"home": tmp_path, "database_url": "postgresql://u:p@db/spine", "protected_endpoints": "lb:443, [::1]:9"}
    )
    environ = {
        "VAULT_ADDR": "https://vault:8200",
        "PREFECT_REDIS_MESSAGING_HOST": "redis",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://u:p@db2/prefect",
    }
    found = own_endpoints(settings, "http://prefect:4200/api", environ)
    assert [one.place for one in found] == [
        *("lb:443", "[::1]:9", "db:5432", "prefect:4200", "db2:5432", "vault:8200", "redis:6379")
    ]
    with pytest.raises(ValueError, match="a host and a port"):
        Settings.model_validate({"protected_endpoints": "lb"})


def test_spine_up_names_its_own_services_to_all_its_processes(tmp_path: Path) -> None:
    user = {"SPINE_PROTECTED_ENDPOINTS": "lb:443", "VAULT_ADDR": "http://vault:8200"}
    everywhere = "0.0.0.0"  # noqa: S104 (nothing is bound)
    environment = shared_environment(make_plan(tmp_path, everywhere, 8000, 4200, environ=user), user)
    assert environment["SPINE_PROTECTED_ENDPOINTS"].split(",") == [
        *("lb:443", "127.0.0.1:8000", "127.0.0.1:4200", "vault:8200")
    ]
    assert endpoints_in(environment)


def test_spines_database_is_refused_and_others_of_the_same_server_are_not() -> None:
    with protected([Endpoint("127.0.0.1", 5432, "Spine's database", "spine")]):
        for refused in ("spine", None):
            assert connection_refusal("127.0.0.1", 5432, refused)
        assert connection_refusal("127.0.0.1", 5432, "warehouse") is None
        with pytest.raises(FetchFailure, match="Spine's database"):
            allowed_addresses(target(host="localhost", database="spine"))
        assert allowed_addresses(target(host="127.0.0.1", database="warehouse")) == ["127.0.0.1"]
        # Other drivers cannot say which database they open.
        with pytest.raises(FetchFailure, match="Spine's database"):
            allowed_addresses(target(host="127.0.0.1", db_type="db2", database="warehouse"))
    # PostgreSQL cuts names.
    with protected([Endpoint("127.0.0.1", 5432, "Spine's database", "s" * 63)]):
        assert connection_refusal("127.0.0.1", 5432, "s" * 63 + "x")


def test_the_address_of_a_vendor_that_many_share_is_compared_by_name_only() -> None:
    with protected([Endpoint("api.prefect.cloud", 443, "Prefect's API")]):
        assert endpoint_refusal("API.prefect.cloud.", 443)
        assert connection_refusal("203.0.113.9", 443) is None


@pytest.mark.parametrize("host", ["localhost", "innocent.test", "127.0.0.1"])
def test_a_proxy_is_not_used_to_reach_it(service: Receiver, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    real = socket.getaddrinfo

    def resolve(name: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if name == "innocent.test" else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("NO_PROXY", "")
    with receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        with guarded(allow_private=True), recorded_replies():
            with pytest.raises(requests.ConnectionError, match="a service of Spine itself"):
                requests.get(f"http://{host}:{service.port}/", timeout=5)
            requests.get("http://elsewhere.test/", timeout=5)
        assert len(proxy.requests) == 1


def test_a_name_that_does_not_resolve_protects_nothing_and_breaks_nothing() -> None:
    with protected([Endpoint("nowhere.invalid", 4200, "Prefect's API")]):
        assert connection_refusal("127.0.0.1", 4200) is None
        assert endpoint_refusal("NOWHERE.invalid", 4200)
