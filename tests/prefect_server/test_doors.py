"""Who may speak to Prefect's server: hosts and origins that are not its own are refused before Prefect sees them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
    temporary_settings,
)
from spine.prefect_server.doors import Doors, allowed_hosts, behind_doors
from spine.prefect_server.login import LOGIN_PATH, login_url
from spine.prefect_server.start import host_of

OWN = "http://127.0.0.1:4200"
SETTINGS = {
    PREFECT_API_URL: f"{OWN}/api",
    PREFECT_SERVER_API_AUTH_STRING: "spine:secret",
    PREFECT_SERVER_CORS_ALLOWED_ORIGINS: f"{OWN},http://localhost:4200,https://prefect.example.com",
}
FOREIGN_HOSTS = [
    *("evil.example", "evil.example:4200", "127.0.0.1.nip.io", "localhost.evil.example", "127.0.0.2", "169.254.1.1"),
    *("[::2]", "[::ffff:127.0.0.1]", "[::]", "", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "2130706433"),
    *("127.1", "0x7f.1", "localhost,evil.example", "xn--lcalhost-n1a", "-localhost", "localhost/", "local host"),
]
FOREIGN_ORIGINS = [
    *("https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:4201", "http://127.0.0.1:42000", ""),
    *("http://127.0.0.1:4200.evil.example", "https://evil.example/http://127.0.0.1:4200", "file://", "*"),
    *("http://localhost", "ftp://127.0.0.1:4200", "http://prefect.example.com", "https://prefect.example.com:8443"),
]
CHANGING = ("POST", "PUT", "PATCH", "DELETE", "TRACE", "MADE-UP")


class Reached(Exception):
    """The application behind the doors was reached."""


async def prefect(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        raise Reached
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"prefect"})


def doors(host: str = "127.0.0.1", **environ: str) -> Doors:
    with temporary_settings(SETTINGS):
        return behind_doors(prefect, host, environ)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(doors()), base_url=OWN) as made:
        yield made


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "127.0.0.1", "localhost:4200", "LOCALHOST", "[::1]:9"])
async def test_its_own_names_are_answered(host: str, client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/health", headers={"Host": host})).text == "prefect"


async def test_no_other_host_reaches_prefect(client: httpx.AsyncClient) -> None:
    for host in FOREIGN_HOSTS:
        for method, path in (("GET", "/api/health"), ("POST", "/api/deployments/"), ("GET", LOGIN_PATH)):
            answer = await client.request(method, path, headers={"Host": host})
            assert (answer.status_code, "prefect" in answer.text) == (403, False), (host, method)


async def test_two_hosts_are_refused_when_one_of_them_is_foreign(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/health", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert answer.status_code == 403


async def test_no_page_of_another_origin_changes_anything(client: httpx.AsyncClient) -> None:
    for origin in FOREIGN_ORIGINS:
        for method in CHANGING:
            answer = await client.request(method, "/api/deployments/", headers={"Origin": origin})
            assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (403, None), origin


@pytest.mark.parametrize("origin", [OWN, "http://localhost:4200", "https://prefect.example.com"])
async def test_its_own_pages_may_change_things(origin: str, client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/deployments/", headers={"Origin": origin})).text == "prefect"


async def test_a_page_of_the_same_host_may_change_things_also_where_it_is_not_listed() -> None:
    app = doors("0.0.0.0", SPINE_PREFECT_HOSTS="prefect.internal")  # noqa: S104 (nothing is bound)
    base = "http://prefect.internal:80"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        own = await client.post(
            "/api/flows/", headers={"Host": "prefect.internal", "Origin": "http://prefect.internal"}
        )
        other = await client.post("/api/flows/", headers={"Host": "prefect.internal", "Origin": "http://evil.example"})
    assert (own.status_code, other.status_code) == (200, 403)


@pytest.mark.parametrize(
    ("headers", "is_reached"),
    [
        ({"host": "127.0.0.1:4200"}, True),
        ({"host": "127.0.0.1:4200", "origin": OWN}, True),
        ({"host": "127.0.0.1:4200", "origin": "https://evil.example"}, False),
        ({"host": "127.0.0.1:4200", "origin": "null"}, False),
        ({"host": "evil.example:4200", "origin": "http://evil.example:4200"}, False),
        ({"origin": OWN}, False),
    ],
)
async def test_a_websocket_is_for_own_hosts_and_origins_only(headers: dict[str, str], is_reached: bool) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/api/events/in", "headers": encoded}
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    if is_reached:
        with pytest.raises(Reached):
            await doors()(scope, receive, send)
    else:
        await doors()(scope, receive, send)
        assert sent == ["websocket.close"]


def test_a_server_on_every_address_answers_to_this_machines_addresses_and_to_added_names() -> None:
    hosts = allowed_hosts("::", [f"{OWN}/api", None], "prefect.internal, [2001:db8::1]:4200")
    assert {"127.0.0.1", "localhost", "::1", "prefect.internal", "2001:db8::1"} <= hosts
    assert not {"0.0.0.0", "::", ""} & hosts  # noqa: S104 (nothing is bound)
    assert "prefect.internal" not in allowed_hosts("127.0.0.1", [], "")


async def test_the_login_page_holds_no_credential_and_loads_and_embeds_nothing(client: httpx.AsyncClient) -> None:
    page = await client.get(LOGIN_PATH)
    assert "secret" not in page.text + str(page.headers)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert (await client.head(LOGIN_PATH)).text == ""


def test_the_credential_in_the_printed_url_is_never_sent_to_a_server() -> None:
    url = login_url(f"{OWN}/", "spine:a/b c#d")
    assert url == f"{OWN}{LOGIN_PATH}#spine:a%2Fb%20c%23d"
    assert httpx.URL(url).raw_path == LOGIN_PATH.encode()


@pytest.mark.parametrize(
    ("arguments", "host"),
    [(["--host", "::", "--port", "1"], "::"), (["--host=10.0.0.1"], "10.0.0.1"), ([], None), (["--host"], None)],
)
def test_the_host_is_read_from_the_command_line(arguments: list[str], host: str | None) -> None:
    assert host_of(arguments) == host
