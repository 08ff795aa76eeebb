"""What each type of channel sends, byte for byte where a receiver can check it."""

import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from apprise.plugins.pagerduty import NotifyPagerDuty
from apprise.plugins.slack import NotifySlack
from pydantic import ValidationError
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.channels.pagerduty import PagerDutyEvents
from spine.alerts.transport import Sender
from spine.severity import Severity

from tests.alerts.transport_support import MESSAGE, resolve
from tests.support.receivers import Handler, Receiver, drop, refuse

SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
DISCORD = "https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
WORKFLOW = (
    "https://prod-0.westus.logic.azure.com:443/workflows/643e69f83c8944438d68119179a10a64/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=KODuebWbDGYFr0z0eu"
)


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender(True, resolve, seconds=3)
    yield made
    made.close()


def config(channel_type: str, **fields: Any) -> ChannelConfig:
    return CHANNEL_TYPES[channel_type].model_validate(fields)


async def test_a_webhook_gets_all_fields_signed(sender: Sender, desk: Receiver) -> None:
    channel = config("webhook", url=desk.url, secret="hm4c-s3cret", headers={"X-Team": "desk", "Content-Type": "a/b"})
    message = replace(
        MESSAGE, message="äöü \u2028 \U0001f4a5", metadata={"rows": [1, None]}, domain="finra.otc", held_back=3
    )
    assert (await sender.send(channel, message, None)).sent
    (request,) = desk.posts
    expected = hmac.new(b"hm4c-s3cret", request.body, sha256).hexdigest()
    assert request.headers["X-Spine-Signature"] == f"sha256={expected}"
    assert (request.headers["Idempotency-Key"], request.headers["X-Team"]) == ("01DELIVERY", "desk")
    assert request.json == {
        "id": "01ALERT",
        "delivery_id": "01DELIVERY",
        "severity": "ERROR",
        "title": "Rows are missing",
        "message": "äöü \u2028 \U0001f4a5",
        "source": "desk.load",
        "domain": "finra.otc",
        "run_id": None,
        "execution_id": None,
        "error_category": None,
        "metadata": {"rows": [1, None]},
        "created_at": "2026-01-02T00:00:00+00:00",
        "held_back": 3,
    }


async def test_a_webhook_without_a_secret_is_not_signed_and_may_have_a_login(sender: Sender, desk: Receiver) -> None:
    channel = config("webhook", url=desk.url.replace("http://", "http://desk:pa%3Ass@"))
    assert (await sender.send(channel, MESSAGE, None)).sent
    (request,) = desk.posts
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == requests.auth._basic_auth_str("desk", "pa:ss")
    assert "X-Spine-Signature" not in request.headers


def snow(desk: Receiver) -> ChannelConfig:
    base = f"http://127.0.0.1:{desk.port}"
    return config("servicenow", instance=base, username="spine", password_ref="env:PW", assignment_group="data")


def table(*known: str, create: int = 201) -> Any:
    """An incident table that has these correlation ids."""

    def behave(handler: Handler) -> None:
        if handler.command == "POST":
            return handler.answer(create, b'{"result": {}}')
        found = [{"sys_id": "1"} for one in known if f"correlation_id%3D{one}" in handler.path]
        return handler.answer(200, json.dumps({"result": found}).encode())

    return behave


async def test_servicenow_gets_one_incident(sender: Sender, desk: Receiver) -> None:
    desk.always = table()
    outcome = await sender.send(snow(desk), MESSAGE, None)
    assert (outcome.sent, outcome.status) == (True, 201)
    lookup, posted = desk.requests
    assert lookup.path.startswith("/api/now/table/incident?sysparm_query=correlation_id%3D01DELIVERY&sysparm_limit=1")
    assert posted.path == "/api/now/table/incident"
    assert posted.headers["Authorization"] == requests.auth._basic_auth_str("spine", "pa55 w/rd")
    assert posted.json["short_description"] == "[ERROR] Rows are missing"
    fields = {name: posted.json[name] for name in ("urgency", "impact", "assignment_group", "correlation_id")}
    assert fields == {"urgency": "2", "impact": "2", "assignment_group": "data", "correlation_id": "01DELIVERY"}


async def test_an_existing_incident_is_not_created_again(sender: Sender, desk: Receiver) -> None:
    desk.always = table("01DELIVERY")
    assert (await sender.send(snow(desk), MESSAGE, None)).sent
    assert desk.posts == []


async def test_a_refusal_of_servicenow_is_an_outcome(sender: Sender, desk: Receiver) -> None:
    desk.always = table(create=403)
    outcome = await sender.send(snow(desk), MESSAGE, None)
    assert (outcome.sent, outcome.status, outcome.permanent) == (False, 403, True)
    desk.behaviours += [table(), drop]
    outcome = await sender.send(snow(desk), MESSAGE, None)
    assert (outcome.sent, outcome.status, outcome.reason) == (False, None, "it closed the connection")
    desk.always = refuse(200, b"<html>log in</html>")
    outcome = await sender.send(snow(desk), MESSAGE, None)
    assert (outcome.sent, outcome.permanent) == (False, False)


CHAT: list[tuple[str, dict[str, str], Mapping[str, Any]]] = [
    ("slack", {"channel": "#ops", "username": "spine"}, {"channel": "#ops", "username": "spine"}),
    ("teams", {}, {"type": "message"}),
    ("discord", {}, {}),
]


@pytest.mark.parametrize(("channel_type", "fields", "expected"), CHAT, ids=[kind for kind, _, _ in CHAT])
async def test_self_hosted_chat_services_get_the_payload_of_their_type(
    sender: Sender, desk: Receiver, channel_type: str, fields: dict[str, str], expected: Mapping[str, Any]
) -> None:
    outcome = await sender.send(config(channel_type, webhook_url=desk.url, **fields), MESSAGE, None)
    assert (outcome.sent, outcome.status) == (True, 200)
    sent = desk.posts[0].json
    assert {name: sent[name] for name in expected} == expected
    assert "3 of 9" in str(sent)


@pytest.mark.parametrize(
    ("channel_type", "fields", "plugin"),
    [
        # Apprise's plugins would turn text into mentions and links.
        ("slack", {"webhook_url": SLACK}, JsonPost),
        ("discord", {"webhook_url": DISCORD}, JsonPost),
        ("teams", {"webhook_url": WORKFLOW}, JsonPost),
        ("pagerduty", {"routing_key": "R" * 32}, PagerDutyEvents),
        ("apprise", {"url": SLACK}, NotifySlack),
    ],
)
def test_chat_services_get_a_payload_of_ours_and_others_that_of_apprise(
    channel_type: str, fields: dict[str, str], plugin: type[Any]
) -> None:
    assert type(config(channel_type, **fields).plugin(MESSAGE, None, {})) is plugin


@pytest.mark.parametrize(("severity", "expected"), [(Severity.INFO, "info"), (Severity.CRITICAL, "critical")])
def test_pagerduty_gets_the_severity(severity: Severity, expected: str) -> None:
    made = config("pagerduty", routing_key="R" * 32).plugin(replace(MESSAGE, severity=severity), None, {})
    assert isinstance(made, NotifyPagerDuty)
    assert made.severity == expected


async def test_an_apprise_url_is_sent_by_its_plugin(sender: Sender, desk: Receiver) -> None:
    outcome = await sender.send(config("apprise", url=f"json://127.0.0.1:{desk.port}/a?redirect=yes"), MESSAGE, None)
    assert outcome.sent
    assert desk.posts[0].json["title"] == "[ERROR] Rows are missing"
    desk.always = refuse(503, b"later", Retry_After="9")
    outcome = await sender.send(config("apprise", url=f"json://127.0.0.1:{desk.port}/a?retry=5"), MESSAGE, None)
    assert (outcome.status, outcome.reason, outcome.retry_after) == (503, "HTTP 503 Service Unavailable: later", 9)
    assert len(desk.posts) == 2


FILES = [
    ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "template"),
    (SLACK, "template"),
    (DISCORD, "template"),
    ("workflows://host/a/b", "TEMPLATE"),
    ("tgram://123456789:abcdefg_hijklmnop/12315544", "%74emplate"),
    ("mailto://u:p@example.com", "pgpkey"),
    ("mailto://u:p@example.com", "pgpprv"),
    ("fcm://project@key/device", "keyfile"),
    ("vapid://u@example.com/x", "subfile"),
]


@pytest.mark.parametrize(("url", "option"), FILES)
def test_an_apprise_url_reads_no_file(url: str, option: str, tmp_path: Path) -> None:
    path = tmp_path / "s3cret.json"
    with pytest.raises(ValidationError, match="names a file") as refused:
        config("apprise", url=f"{url}{'&' if '?' in url else '?'}{option}={path}")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("channel_type", "url"), [("slack", SLACK), ("discord", DISCORD), ("teams", f"{WORKFLOW}&a=b")]
)
def test_a_webhook_url_reads_no_file(channel_type: str, url: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text('{"text": "private"}')
    made = config(channel_type, webhook_url=f"{url}{'&' if '?' in url else '?'}template={path}")
    assert type(made.plugin(MESSAGE, None, {})) is JsonPost


@pytest.mark.parametrize(
    "url", [" syslog://", "SYSLOG://", "dbus://", "windows://", "blink1://", "xmpp://u:p@example.com"]
)
def test_an_apprise_url_reaches_no_service_of_the_machine(url: str) -> None:
    with pytest.raises(ValidationError, match="names a service"):
        config("apprise", url=url)


INVALID: list[tuple[str, dict[str, Any]]] = [
    *(
        ("servicenow", {"instance": one})
        for one in ("https://[", "https://h:abc", "http://h:99999", "https://u:p@h", "a/b")
    ),
    *(("email", {"smtp_host": one}) for one in ("http://h", "h x", "h\r\nx", "h/x")),
    # Apprise would write to another address, or to none.
    *(("email", {"recipients": [one]}) for one in ("a@b@c.de", "x@y.zz#", "x@y", "a@b.cd, e@f.gh", "A <x@y.zz>")),
    ("email", {"from_address": "a@b@c.de"}),
    ("email", {"recipients": ["x@y.zz", "x@y.zz"]}),
    ("email", {"smtp_user": "u"}),
    *(("webhook", {"url": one}) for one in ("http://h\\@i/x", "ftp://h/x", "http://", "http://[x/", "http://h:99999/")),
    *(("webhook", {"headers": {one: "x"}}) for one in ("Host", "content-length", "IDEMPOTENCY-KEY", "a b", "")),
    ("webhook", {"headers": {"X": "a\nb"}}),
]
VALID: dict[str, dict[str, Any]] = {
    "servicenow": {"instance": "dev1", "username": "u", "password_ref": "env:X", "assignment_group": "g"},
    "email": {"smtp_host": "h", "smtp_port": 25, "from_address": "a@b.co", "recipients": ["x@y.zz"]},
    "webhook": {"url": "http://h/x"},
}


@pytest.mark.parametrize(("channel_type", "invalid"), INVALID)
def test_an_invalid_config_is_refused(channel_type: str, invalid: dict[str, Any]) -> None:
    assert config(channel_type, **VALID[channel_type]).endpoints()
    with pytest.raises(ValidationError):
        config(channel_type, **{**VALID[channel_type], **invalid})


def test_a_config_shows_no_secret() -> None:
    made = config("webhook", url="http://h/s3cret", headers={"X": "s3cret"}, secret="s3cret")
    assert "s3cret" not in repr(made)
    assert isinstance(made.plugin(MESSAGE, None, {}), JsonPost)
    assert "s3cret" not in made.plugin(MESSAGE, None, {}).url()
