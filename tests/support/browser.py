"""Headless Chromium, driven through ChromeDriver's own protocol (W3C WebDriver)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import free_port, running_program, wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# A browser of the tests has nothing to fetch for itself.
_OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


class Browser:
    """One window with an empty profile."""

    def __init__(self, session: str) -> None:
        self._client = httpx.Client(base_url=session, timeout=60)

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self._post("url", {"url": url})

    @property
    def url(self) -> str:
        """Where the window is."""
        return str(self._get("url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """The result of a script's `return` in the page; a promise is waited for."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, script: str, what: str, seconds: float = 30) -> None:
        """Wait until a script returns something true."""
        wait_until(lambda: bool(self.run(script)), what, seconds)

    def screenshot(self) -> str:
        """The window as a PNG in base64."""
        return str(self._get("screenshot"))

    def _get(self, command: str) -> Any:
        return self._value(self._client.get(command))

    def _post(self, command: str, body: dict[str, Any]) -> Any:
        return self._value(self._client.post(command, json=body))

    @staticmethod
    def _value(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json()["value"]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in `folder`."""
    port = free_port()
    assert DRIVER is not None
    with running_program([DRIVER, f"--port={port}"], {}, folder / "chromedriver.log") as process:
        driver = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert process.is_running(), (folder / "chromedriver.log").read_text()
            try:
                return bool(httpx.get(f"{driver}/status", timeout=5).json()["value"]["ready"])
            except httpx.HTTPError:
                return False

        wait_until(answers, "ChromeDriver to start", 30)
        options = {"binary": CHROMIUM, "args": [*_OPTIONS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        made = httpx.post(f"{driver}/session", json=wanted, timeout=60)
        assert made.is_success, made.text
        session = f"{driver}/session/{made.json()['value']['sessionId']}/"
        try:
            yield Browser(session)
        finally:
            httpx.delete(session.rstrip("/"), timeout=30)
