"""The page that logs a browser in to Prefect's UI: `/spine/login#<credential>`.

Browsers do not send the part of a URL after `#` to the server, so the credential is in no log of a server or proxy. The
page checks it with Prefect's API, keeps it where Prefect's own login form keeps it, and opens the UI.
"""

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

LOGIN_PATH = "/spine/login"

# Both of Prefect's UIs keep the credential under this name, encoded as for basic authentication.
_STORED_AS = "prefect-password"
_SCRIPT = """
const [api, ui, name] = %s;
async function logIn() {
  const given = btoa(decodeURIComponent(location.hash.slice(1)));
  history.replaceState(null, "", location.pathname);
  const answer = await fetch(api + "/admin/version", {headers: {Authorization: "Basic " + given}});
  if (!answer.ok) throw new Error();
  localStorage.setItem(name, given);
  location.replace(ui);
}
function start() {
  logIn().catch(() => {
    document.getElementById("state").textContent =
      "This link is not valid for this server. Open the newest link that spine up printed.";
  });
}
// A browser that has this page open does not load it again for another link.
addEventListener("hashchange", start);
start();
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in to Prefect</title></head>
<body><p id="state">Logging in to Prefect ...</p><script>%s</script></body></html>
"""


def login_url(ui: str, credential: str) -> str:
    """The URL that logs a browser in to the UI at `ui`."""
    return f"{ui.rstrip('/')}{LOGIN_PATH}#{quote(credential, safe=':')}"


@dataclass(frozen=True)
class LoginPage:
    """The page of one server, and the headers that keep other pages from embedding it and it from loading anything."""

    html: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, api_url: str, ui_path: str) -> "LoginPage":
        """The page for a server whose API is at `api_url` and whose UI is at `ui_path`."""
        # A closing tag in a URL must not end the script.
        values = json.dumps([api_url.rstrip("/"), ui_path, _STORED_AS]).replace("<", "\\u003c")
        script = _SCRIPT % values
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        url = urlsplit(api_url)
        api = f" {url.scheme}://{url.netloc}" if url.netloc else ""
        html = (_PAGE % script).encode()
        headers = {
            "content-type": "text/html; charset=utf-8",
            "content-length": str(len(html)),
            "content-security-policy": f"default-src 'none'; script-src 'sha256-{digest}'; "
            f"connect-src 'self'{api}; frame-ancestors 'none'; base-uri 'none'",
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return cls(html, tuple((name.encode(), value.encode()) for name, value in headers.items()))

    async def send(self, send: Callable[[Any], Awaitable[None]], method: str) -> None:
        """Answer one request."""
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else self.html})
