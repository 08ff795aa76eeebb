"""Text of flows and callers is inert: no service gets a mention, a hidden link or another header from it."""

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
import trustme
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.email import EmailConfig
from spine.alerts.inert_text import inert
from spine.alerts.transport import Sender

from tests.alerts.transport_support import MESSAGE, resolve
from tests.support.receivers import Handler, Receiver, refuse
from tests.support.smtp import mail_server

HOSTILE = [
    "<!channel> <!here|here> <!everyone> <!subteam^S1|team>",
    "<@U024BE7LH> <#C024BE7LR|ops> <@123456> <@&7890>",
    "@everyone @here @channel @all x@everyone",
    "!channel> !here|x> @U024BE7LH>",
    "<https://evil.example|https://bank.example>",
    "https://evil.example|https://bank.example>",
    "[https://bank.example](https://evil.example)",
    "![chart](https://evil.example/pixel.png)",
    "[bank][1]\n\n[1]: https://evil.example",
    "<a href='https://evil.example'>bank</a> <img src=x> <b>loud</b>",
    "[url=https://evil.example]bank[/url]",
    "<at>Everyone</at> <https://evil.example>",
    "&lt;!channel&gt; &#60;!here&#62;",
    "\u202emoc.knab\u202c \u2066x\u2069",
    "a\r\nBcc: victim@example.com\r\n\r\nbody\x1b[2J\x08",
]
TEXT = "\n".join(HOSTILE)
HOSTILE_MESSAGE = replace(
    MESSAGE, title=TEXT, message=TEXT, source=f"desk\nRun: forged {HOSTILE[0]}", domain=HOSTILE[2], run_id=HOSTILE[6]
)
# What a service would act upon; a service may also decode entities once more.
ACTIVE = {
    "a mention": r"<[!@#]|(?<![\w.+-])@\w|@(?:everyone|here|channel|all)\b",
    "a link with another text": r"\]\(|\][:\[]|<[^<>|]*\|[^<>]*>|\[/?url",
    "markup": r"<[/a-z]",
    "a hidden character": "[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]",
}


def active_parts(text: str) -> dict[str, str]:
    found = {name: re.search(pattern, text, re.IGNORECASE) for name, pattern in ACTIVE.items()}
    return {name: match[0] for name, match in found.items() if match}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_has_no_active_part_left(text: str) -> None:
    assert active_parts(text) or "&lt;" in text or text.startswith(("!", "https"))
    assert active_parts(inert(text)) == {}


@pytest.mark.parametrize(
    "text",
    ["Rows: 3 of 9", "desk@example.com", "a < b | c > d", "x[1] = (2)", "https://desk.example/a?b=c#d", "Zürich\n\t✓"],
)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


def texts_in(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from texts_in(child)


CHANNELS: list[tuple[str, dict[str, Any]]] = [
    ("slack", {"webhook_url": "{url}"}),
    ("teams", {"webhook_url": "{url}"}),
    ("discord", {"webhook_url": "{url}"}),
    ("apprise", {"url": "mmost://127.0.0.1:{port}/3ccdd113474722377935511fc85d3dd4"}),
    ("apprise", {"url": "rocket://a/b@127.0.0.1:{port}/#ops"}),
    ("apprise", {"url": "ntfy://127.0.0.1:{port}/topic?format=markdown"}),
    ("apprise", {"url": "gotify://127.0.0.1:{port}/token?format=markdown"}),
]


@pytest.mark.parametrize(("channel_type", "fields"), CHANNELS, ids=lambda one: one if isinstance(one, str) else "")
async def test_services_of_any_host_get_inert_text(
    sender: Sender, desk: Receiver, channel_type: str, fields: dict[str, str]
) -> None:
    given = {name: text.format(url=desk.url, port=desk.port) for name, text in fields.items()}
    await sender.send(CHANNEL_TYPES[channel_type].model_validate(given), HOSTILE_MESSAGE, None)
    assert desk.posts
    for post in desk.posts:
        assert_inert(post.body.decode(), post.headers)


def assert_inert(body: str, headers: Any) -> None:
    assert "evil.example" in body or "forged" in body
    texts = list(texts_in(json.loads(body))) if body.startswith(("{", "[")) else [unquote_plus(body)]
    for text in [*texts, *(value for name, value in headers.items() if name.lower() in ("title", "x-title"))]:
        # Telegram's plugin makes the title bold.
        text = re.sub("^<b>(.*?)</b>", r"\1", text)
        # Plugins separate the title from the text by CRLF.
        assert active_parts(text.replace("\r\n", "\n")) == {}, text


async def test_slack_and_discord_are_asked_to_mention_nobody(sender: Sender, desk: Receiver) -> None:
    for kind in ("slack", "discord"):
        await sender.send(CHANNEL_TYPES[kind].model_validate({"webhook_url": desk.url}), HOSTILE_MESSAGE, None)
    slack, discord = (post.json for post in desk.posts)
    assert (slack["unfurl_links"], slack["unfurl_media"]) == (False, False)
    assert discord["allowed_mentions"] == {"parse": []}
    assert "content" not in discord


async def test_a_field_of_several_lines_adds_no_other_field(sender: Sender, desk: Receiver) -> None:
    await sender.send(CHANNEL_TYPES["slack"].model_validate({"webhook_url": desk.url}), HOSTILE_MESSAGE, None)
    lines = desk.posts[0].json["text"].splitlines()
    assert [line for line in lines if line.startswith("Run: forged")] == []
    assert any(line.startswith("Source: desk Run: forged") for line in lines)


HOSTS = {
    "slack": ("hooks.slack.com", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"),
    "discord": ("discord.com", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js?format=markdown"),
    "telegram": ("api.telegram.org", "tgram://123456789:abcdefg_hijklmnop/12315544"),
    "telegram-markdown": ("api.telegram.org", "tgram://123456789:abcdefg_hijklmnop/12315544?format=markdown"),
    "telegram-text": ("api.telegram.org", "tgram://123456789:abcdefg_hijklmnop/12315544?format=text"),
    "google-chat": ("chat.googleapis.com", "gchat://workspace/key/token"),
    "webex": ("api.ciscospark.com", "wxteams://" + "a" * 80),
}


@pytest.mark.parametrize("service", HOSTS)
async def test_services_of_vendors_get_inert_text(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, url = HOSTS[service]
    with vendor(host, tmp_path, monkeypatch) as desk:
        sender = Sender(allow_private=True, resolve=resolve)
        outcome = await sender.send(config_of(url), HOSTILE_MESSAGE, None)
        sender.close()
        assert desk.posts, outcome
        for post in desk.posts:
            assert_inert(post.body.decode(), post.headers)


def config_of(url: str) -> ChannelConfig:
    return CHANNEL_TYPES["apprise"].model_validate({"url": url})


@contextmanager
def vendor(host: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server in the place of a vendor's, with a certificate for its name."""
    authority = trustme.CA()
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(server.server_address[1])
    made.always = refuse(200, b'{"ok": true}')
    server.RequestHandlerClass = type("BoundHandler", (Handler,), {"receiver": made})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    look_up = socket.getaddrinfo

    def instead(name: Any, *args: Any, **options: Any) -> Any:
        if name == host:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", made.port))]
        return look_up(name, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", instead)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.stopped.set()
        server.shutdown()
        server.server_close()


async def test_mail_has_the_headers_of_spine_only(sender: Sender) -> None:
    with mail_server(trustme.CA()) as mailbox:
        config = EmailConfig(
            smtp_host="127.0.0.1",
            smtp_port=mailbox.port,
            from_address="spine@example.com",
            recipients=["a@example.com"],
            use_tls=False,
        )
        outcome = await sender.send(config, HOSTILE_MESSAGE, "a@example.com")
    assert outcome.sent, outcome
    [(recipients, message)] = mailbox.messages
    assert recipients == ["a@example.com"]
    assert (message["Bcc"], message["Cc"], len(message.get_all("To", []))) == (None, None, 1)
    assert [part.get_content_type() for part in message.walk() if not part.is_multipart()] == ["text/plain"]
    text = next(part for part in message.walk() if not part.is_multipart()).get_payload(decode=True)
    assert isinstance(text, bytes)
    assert re.search(ACTIVE["a hidden character"], text.decode().replace("\r\n", "\n")) is None


async def test_servicenow_gets_fields_without_hidden_characters(sender: Sender, desk: Receiver) -> None:
    desk.always = refuse(200, b'{"result": []}')
    given = {"instance": f"http://127.0.0.1:{desk.port}", "username": "u", "assignment_group": "data"}
    config = CHANNEL_TYPES["servicenow"].model_validate({**given, "password_ref": "env:PW"})
    await sender.send(config, HOSTILE_MESSAGE, None)
    incident = desk.posts[0].json
    assert "\n" not in incident["short_description"]
    assert all(active_parts(text) == {} for text in texts_in(incident))
