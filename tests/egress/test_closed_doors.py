"""Attacks over the API, with private addresses allowed: each aims at a service or a secret of Spine itself."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine import main
from spine.auth.bootstrap import ensure_admin_key
from spine.settings import Settings

from tests.support.databases import migrate
from tests.support.processes import wait_until
from tests.support.receivers import Receiver, receiver
from tests.support.stack import ADMIN_KEY
from tests.support.variants import one_by_default
from tests.support.web import PATIENCE

ATTACK = "attack"
# How the same address can be written; names that resolve to it are added by a test.
HOSTS = ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "127.0.0.9", "[::ffff:127.0.0.1]")

REASONS = ("a service of Spine itself", "config.instance", "not a URL that Apprise supports")


@dataclass
class Doors:
    """A client of the API, and the server that the API uses as Prefect."""

    client: httpx.AsyncClient
    prefect: Receiver
    settings: Settings
    port: int

    async def send(self, method: str, path: str, **body: Any) -> httpx.Response:
        """The response to a request with a JSON body."""
        return await self.client.request(method, path, json=body)

    async def channel(self, kind: str, **config: Any) -> httpx.Response:
        """Try to make a channel."""
        return await self.send("POST", "/alerts/channels", name="c", channel_type=kind, config=config)

    async def source(self, kind: str, **config: Any) -> httpx.Response:
        """Try to register a source."""
        return await self.send("POST", "/sources", name="s", source_type=kind, config=config)

    async def connection(self, **fields: Any) -> httpx.Response:
        """Try to register a connection."""
        return await self.send("POST", "/sources/connections", **{"name": "d", "database": "x", **fields})

    def attacks(self) -> list[str]:
        """The requests of an attack that arrived."""
        return [request.path for request in self.prefect.requests if ATTACK in request.path]


@pytest.fixture(scope="module")
def prefect() -> Iterator[Receiver]:
    with receiver() as made:
        made.always = lambda handler: handler.answer(200, b"[]")
        yield made


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A migrated database with the admin key. The state is inside of the only root."""
    home = tmp_path_factory.mktemp("doors") / "home"
    given: dict[str, Any] = {"home": home, "api_key": ADMIN_KEY, "follow_runs": False, "send_alerts": False}
    given |= {"allow_private_addresses": True, "file_roots": (home.parent,)}
    settings = Settings(**given)
    migrate(settings.sqlalchemy_url)
    ensure_admin_key(settings)
    return settings


@pytest.fixture(scope="module")
async def doors(prefect: Receiver, settings: Settings) -> AsyncIterator[Doors]:
    """The API on a port of its own, in this process."""
    with (
        pytest.MonkeyPatch.context() as patched,
        temporary_settings({PREFECT_API_URL: f"http://localhost:{prefect.port}/api"}),
    ):
        patched.setattr(main, "configure_logging", lambda _: None)
        app = main.create_app(settings)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            await asyncio.to_thread(wait_until, lambda: server.started or serving.done(), "the API", 30, every=0.01)
            headers = {"X-API-Key": ADMIN_KEY}
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=PATIENCE
            ) as client:
                yield Doors(client, prefect, settings, port)
            server.should_exit = True
            await serving


@pytest.fixture(autouse=True)
async def _nothing_is_left(doors: Doors) -> AsyncIterator[None]:
    yield
    for path in ("/alerts/channels", "/sources/connections"):
        for one in (await doors.client.get(path)).json()["data"]:
            await doors.client.delete(f"{path}/{one['id']}")
    assert doors.attacks() == []


@pytest.mark.parametrize("host", one_by_default(HOSTS))
@pytest.mark.parametrize("aim", ["prefect", "listener"])
async def test_channels_sources_and_connections_cannot_be_aimed_at_spine(doors: Doors, host: str, aim: str) -> None:
    port = doors.prefect.port if aim == "prefect" else doors.port
    url, bare = f"http://{host}:{port}/{ATTACK}", host.strip("[]")
    login = {"username": "u", "password_ref": "env:SPINE_SECRET_X"}
    email = {"from_address": "a@example.com", "recipients": ["b@example.com"]}
    key = "SHA256:" + "A" * 43
    refused = [
        await doors.channel("webhook", url=url),
        *[await doors.channel(kind, webhook_url=url) for kind in ("slack", "teams", "discord")],
        await doors.channel("apprise", url=url.replace("http:", "json:")),
        await doors.channel("email", smtp_host=bare, smtp_port=port, **email),
        await doors.channel("servicenow", instance=f"http://{host}:{port}", assignment_group="g", **login),
        await doors.source("http", url=url),
        await doors.source("s3", bucket="desk", key="k", endpoint_url=f"http://{host}:{port}"),
        await doors.source("sftp", host=bare, port=port, path="/x", host_key=key, **login),
        *[await doors.connection(db_type=kind, host=bare, port=port) for kind in ("postgresql", "mysql", "oracle")],
    ]
    assert [one.status_code for one in refused] == [400] * len(refused)
    # ServiceNow's field and Apprise refuse some notations as such.
    reasons = [one.json()["detail"] for one in refused]
    assert all(any(reason in text for reason in REASONS) for text in reasons), reasons


async def test_a_name_that_resolves_to_spine_is_refused_when_it_is_used(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "innocent.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for port in (doors.prefect.port, doors.port):
        for kind, config in {
            "webhook": {"url": f"http://innocent.test:{port}/{ATTACK}"},
            "apprise": {"url": f"json://innocent.test:{port}/{ATTACK}"},
        }.items():
            made = await doors.channel(kind, **config)
            assert made.status_code == 201, made.text
            result = (await doors.send("POST", f"/alerts/channels/{made.json()['id']}/test")).json()
            assert result["success"] is False
            assert "a service of Spine itself" in result["message"]
            await doors.client.delete("/alerts/channels/c")
        made = await doors.connection(db_type="mysql", host="innocent.test", port=port, ssl_mode="disable")
        result = (await doors.send("POST", "/sources/connections/d/test")).json()
        assert "a service of Spine itself" in result["message"]
        await doors.client.delete("/sources/connections/d")


async def test_a_receiver_on_the_same_machine_is_reached(doors: Doors) -> None:
    with receiver() as desk:
        assert (await doors.channel("webhook", url=desk.url)).status_code == 201
        assert (await doors.send("POST", "/alerts/channels/c/test")).json()["success"] is True
        # A short message and the longest.
        assert len(desk.posts) == 2


SHAPING = [
    *("?:message=name", "?:version=", "?%3Amessage=x", "?-name=x", "?%2DX=1", "?+Authorization=Bearer%20x", "? X=1"),
    *("?%20X-A=1", "?%2BX=1", "?a=b&:c=d", "?a=b;:c=d", "?method=DELETE", "?METHOD=patch", "?method=GET", "?x=1&+=2"),
]


@pytest.mark.parametrize("option", SHAPING)
@pytest.mark.parametrize("schema", one_by_default(["json", "jsons", "xml", "form", "apprise"]))
async def test_apprise_urls_cannot_shape_the_request(doors: Doors, schema: str, option: str) -> None:
    response = await doors.channel("apprise", url=f"{schema}://example.com/token0token{option}")
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("url", ["json://example.com/x?format=text", "json://example.com/x?method=PUT", "ntfys://h/t"])
async def test_other_options_of_apprise_are_accepted(doors: Doors, url: str) -> None:
    assert (await doors.channel("apprise", url=url)).status_code == 201


REFS = [
    *("file:/etc/shadow", "file:/etc/hostname", "file:/proc/self/environ", "file:/dev/fd/3", "env:HOME", "env:PATH"),
    *("env:SPINE_SECRET_KEY", "env:spine_secret_key", "env:SPINE_API_KEY", "env:PREFECT_API_AUTH_STRING"),
    *("file:{home}/secret-key", "file:{home}/api-key", "file:{home}/spine.db", "file:{home}/secrets/../secret-key"),
    *("file:/run/secrets/../../etc/shadow", "file:/run/secrets/kubernetes.io/serviceaccount/token"),
]


@pytest.mark.parametrize("ref", one_by_default(REFS))
async def test_references_name_only_what_was_opened(doors: Doors, ref: str) -> None:
    ref = ref.format(home=doors.settings.home)
    http = {"url": "http://example.com/x"}
    email = {"smtp_host": "example.com", "smtp_port": 25, "from_address": "a@example.com", "recipients": ["b@x.com"]}
    responses = [
        await doors.channel("email", **email, smtp_user="u", smtp_password_ref=ref),
        await doors.channel("servicenow", instance="dev1", username="u", assignment_group="g", password_ref=ref),
        await doors.source("http", **http, auth={"type": "bearer", "token_ref": ref}),
        await doors.source("http", **http, auth={"type": "basic", "username": "u", "password_ref": ref}),
        await doors.source("s3", bucket="desk", key="k", access_key_ref=ref, secret_key_ref=ref),
        await doors.connection(db_type="mysql", host="example.com", port=1, password_ref=ref),
        await doors.connection(db_type="mysql", host="example.com", port=1, ssl_cert_ref=ref),
    ]
    assert {response.status_code for response in responses} <= {400, 422}


async def test_the_state_is_closed_to_file_sources_and_sqlite_files(doors: Doors) -> None:
    home: Path = doors.settings.home
    inside = ("secret-key", "api-key", "spine.db", "prefect/prefect.db", "*", "../home/secret-key", "./secret-key")
    for path in (*(f"{home}/{name}" for name in inside), f"{home}", "home/spine.db", "home/*", "/proc/self/environ"):
        responses = [await doors.source("file", path=path), await doors.connection(db_type="sqlite", database=path)]
        assert [response.status_code for response in responses] == [400, 400], path


@pytest.mark.parametrize(
    "moved",
    [
        *("http://other.example.com/x", "https://example.com/x", "http://example.com:81/x", "http://example.com/y"),
        "http://example.com.evil.test/x",
    ],
)
async def test_a_stored_secret_is_not_sent_to_another_address(doors: Doors, moved: str) -> None:
    stored = {"url": "http://example.com/x", "headers": {"Authorization": "s3cret"}}
    for path, made in (
        ("/alerts/channels/c", await doors.channel("webhook", **stored, secret="hm4c-s3cret")),
        ("/sources/s", await doors.source("http", **stored)),
    ):
        assert made.status_code == 201, made.text
        refused = await doors.send("PATCH", path, config={"url": moved, "headers": {"Authorization": "***"}})
        assert refused.status_code == 400
        assert "send the secret again" in refused.json()["detail"]
        assert refused.json()["errors"][0]["loc"] == ["body", "config", "headers", "Authorization"]
        again = await doors.send("PATCH", path, config={"url": moved, "headers": {"Authorization": "new"}})
        assert again.status_code == 200, again.text
        assert "s3cret" not in refused.text + again.text
    await doors.client.delete("/sources/s")
