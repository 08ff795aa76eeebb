"""Prefect's server as `spine up` starts it: it needs the credential, and a browser logs in with the printed URL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from spine.prefect.client import Prefect
from spine.prefect_server.login import login_url
from spine.up.plan import LOOPBACK, Plan, server_environment
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support.browser import CHROMIUM, DRIVER, Browser, browser
from tests.support.prefect_processes import prefect_server
from tests.support.receivers import receiver
from tests.support.web import WEB
from tests.up.support import CLEAN, plan_for

CREDENTIAL = "spine:that-only-this-test-knows"
PATHS = [
    *("/admin/version", "/admin/settings", "/flows/name/x", "/csrf-token?client=x", "/health/", "/ready/", "/hello"),
    *("//health", "/flows/..%2fhealth", "/block_documents/name/health", "/variables/name/health", "/metrics"),
]
FILTERS = ["deployments", "flow_runs", "flows", "block_documents", "work_pools", "variables", "artifacts", "logs"]
SOCKETS = ["/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"]
NOT_ASCII = {"Authorization": "Basic 8J+YgA=="}
STRANGERS = [
    *({}, {"Authorization": "Basic"}, {"Authorization": f"Bearer {CREDENTIAL}"}, {"Authorization": "Basic !"}),
    *({"Authorization": "Basic c3BpbmU6"}, NOT_ASCII, {"X-API-Key": CREDENTIAL}),
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """A running server, with the environment that `spine up` gives it."""
    home = Path(tmp_path_factory.mktemp("home"))
    made = plan_for(home)
    made = replace(made, prefect_auth=CREDENTIAL, prefect_ui=f"http://{LOOPBACK}:{made.prefect_port}")
    with prefect_server(server_environment(made, CLEAN), home / "server.log"):
        yield made


def test_nothing_but_its_health_is_answered_without_the_credential(plan: Plan) -> None:
    requests = [("GET", path) for path in PATHS] + [("POST", f"/{name}/filter") for name in FILTERS]
    requests += [("POST", "/deployments/"), ("POST", "/flows/"), ("POST", "/events")]
    tried = 0
    for headers in STRANGERS:
        for method, path in requests:
            body: dict[str, str] | None = {} if method == "POST" else None
            # Each on a connection of its own: after an answer 500 the server closes it.
            status = WEB.request(method, f"{plan.prefect_api}{path}", headers=headers, json=body).status_code
            # Prefect cannot compare a credential that is not ASCII, and answers 500.
            assert status == (500 if headers == NOT_ASCII else 401), (method, path, headers)
            tried += 1
    assert WEB.get(f"{plan.prefect_api}/health").status_code == 200
    known = httpx.BasicAuth(*CREDENTIAL.split(":", 1))
    assert WEB.get(f"{plan.prefect_api}/admin/version", auth=known).status_code == 200
    assert tried > 100


def test_no_stream_of_events_opens_without_the_credential(plan: Plan) -> None:
    for path in SOCKETS:
        url = plan.prefect_api.replace("http", "ws", 1) + path
        for protocol, origin in ((None, None), ("prefect", None), ("prefect", "https://evil.example")):
            assert not opens(url, protocol, origin), (path, protocol, origin)


def opens(url: str, protocol: str | None, origin: str | None) -> bool:
    """Whether a stream is opened for a wrong credential."""
    try:
        with connect(
            url, subprotocols=[Subprotocol(protocol)] if protocol else None, origin=Origin(origin) if origin else None
        ) as stream:
            stream.send('{"type": "auth", "token": "wrong"}')
            return "auth_success" in str(stream.recv(timeout=5))
    except (ConnectionClosed, InvalidStatus):
        return False


async def test_spine_knows_that_it_needs_a_credential(plan: Plan) -> None:
    for credential in (CREDENTIAL, "wrong"):
        with temporary_settings({PREFECT_API_URL: plan.prefect_api, PREFECT_API_AUTH_STRING: credential}):
            async with Prefect.connect(5) as prefect:
                assert await prefect.answers_anyone() is False


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("Chromium and ChromeDriver are not installed")
    with browser(tmp_path) as opened:
        yield opened


def shows(window: Browser, text: str) -> None:
    window.wait_for(f"return document.body.innerText.includes({text!r})", f"the page to show {text}")


@pytest.mark.parametrize("name", [LOOPBACK, "localhost"])
def test_the_printed_url_logs_a_browser_in_for_good(plan: Plan, window: Browser, name: str) -> None:
    ui = plan.prefect_ui.replace(LOOPBACK, name)
    window.open(ui)
    shows(window, "Login")
    window.open(login_url(ui, "spine:of-an-earlier-server"))
    shows(window, "This link is not valid")
    window.open(login_url(ui, CREDENTIAL))
    shows(window, "Work Pools")
    assert CREDENTIAL not in window.url
    window.open(f"{ui}/deployments")
    shows(window, "Deployments")
    assert "/login" not in window.url


def test_a_page_of_another_origin_gets_nothing_from_a_browser_that_is_logged_in(plan: Plan, window: Browser) -> None:
    window.open(login_url(plan.prefect_ui, CREDENTIAL))
    shows(window, "Work Pools")
    api = plan.prefect_api
    with receiver() as elsewhere:
        window.open(f"http://127.0.0.1:{elsewhere.port}/page.html")
        asked = "return fetch(arguments[0], arguments[1]).then(r => r.status, e => 'refused')"
        plain = {"method": "POST", "body": "{}", "headers": {"Content-Type": "text/plain"}}
        with_secret = {"headers": {"Authorization": "Basic c3BpbmU6eA=="}}
        for path in ("/health", "/admin/version", "/deployments/filter", "/block_documents/filter"):
            for options in ({}, {"credentials": "include"}, plain, with_secret):
                assert window.run(asked, f"{api}{path}", options) == "refused", (path, options)
        opened = "return new Promise(r => { const s = new WebSocket(arguments[0], 'prefect');"
        opened += " s.onopen = () => r('open'); s.onerror = () => r('refused') })"
        for path in SOCKETS:
            assert window.run(opened, api.replace("http", "ws", 1) + path) == "refused", path
