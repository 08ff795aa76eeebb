"""Receivers that refuse what is too long for them, as the real ones do: whatever an alert holds, they accept it."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from apprise.plugins import pagerduty
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.fitting import fit, utf8_bytes, utf16_units
from spine.alerts.transport import Sender

from tests.alerts.support import Alerts
from tests.alerts.transport_support import MESSAGE, resolve
from tests.support.receivers import Handler, Receiver

FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
TEXTS = {
    "short": "3 of 9",
    "at the limit of PagerDuty": "x" * 1_024,
    "long": "ValueError: " + "0123456789 " * 300,
    "enormous": "line\n" * 4_000,
    "one word": "x" * 20_000,
    "chinese": "漢" * 20_000,
    "emoji": FAMILY * 4_000,
    "flags": "🇨🇭" * 9_000,
    "markup": "<&>\"'`*_~|@everyone [a](b) " * 740,
    "control characters": "\x00\x07\x1b\u202e" * 5_000,
}
TITLES = ["Rows are missing", "漢" * 500, FAMILY * 150, "x" * 500]


def units(text: Any) -> int:
    assert isinstance(text, str)
    return utf16_units(text)


def is_accepted_by_slack(body: Any) -> bool:
    return units(body["text"]) <= 16_383


def is_accepted_by_discord(body: Any) -> bool:
    (embed,) = body["embeds"]
    title, description = units(embed["title"]), units(embed["description"])
    return units(body.get("content", "")) <= 2_000 and title <= 256 and 0 < description <= 4_096


def is_accepted_by_teams(body: Any) -> bool:
    return len(json.dumps(body)) <= 28 * 1_024


def is_accepted_by_pagerduty(body: Any) -> bool:
    payload = body["payload"]
    short = len(payload["summary"]) <= 1_024 and len(body["dedup_key"]) <= 255
    return short and bool(payload["source"]) and len(json.dumps(body)) <= 512 * 1_024


def is_accepted_by_servicenow(body: Any) -> bool:
    return len(body["short_description"]) <= 160 and len(body["description"]) <= 4_000


ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "slack": is_accepted_by_slack,
    "discord": is_accepted_by_discord,
    "teams": is_accepted_by_teams,
    "pagerduty": is_accepted_by_pagerduty,
    "servicenow": is_accepted_by_servicenow,
    "webhook": lambda body: len(json.dumps(body)) < 1_000_000,
}


def channel_at(channel_type: str, desk: Receiver) -> ChannelConfig:
    base = f"http://127.0.0.1:{desk.port}"
    fields: dict[str, dict[str, Any]] = {
        "pagerduty": {"routing_key": "R" * 32},
        "servicenow": {"instance": base, "username": "spine", "password_ref": "env:PW", "assignment_group": "data"},
        "webhook": {"url": desk.url},
    }
    return CHANNEL_TYPES[channel_type].model_validate(fields.get(channel_type, {"webhook_url": desk.url}))


def strict(channel_type: str) -> Callable[[Handler], None]:
    """Accept what the service would, and answer 400 to the rest."""

    def behave(handler: Handler) -> None:
        if handler.command == "GET":
            return handler.answer(200, b'{"result": []}')
        body = handler.receiver.posts[-1].json
        return handler.answer(202 if ACCEPTS[channel_type](body) else 400, b"{}")

    return behave


@pytest.fixture
async def sender(monkeypatch: pytest.MonkeyPatch, desk: Receiver) -> AsyncIterator[Sender]:
    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, pagerduty.PagerDutyRegion.US, desk.url)
    made = Sender(True, resolve, seconds=9)
    yield made
    made.close()


@pytest.mark.parametrize("channel_type", ACCEPTS)
async def test_no_alert_is_too_long_for_its_receiver(channel_type: str, sender: Sender, desk: Receiver) -> None:
    desk.always = strict(channel_type)
    channel = channel_at(channel_type, desk)
    messages = [replace(MESSAGE, message=text) for text in TEXTS.values()]
    messages += [replace(MESSAGE, title=title, message="x" * 20_000, source="漢" * 255) for title in TITLES]
    messages.append(replace(MESSAGE, metadata={"rows": ["x" * 1_000] * 900}, problem_key="漢" * 255))
    for message in messages:
        outcome = await sender.send(channel, message, None)
        if channel_type == "webhook" and message.metadata:
            continue
        assert outcome.sent, (message.title[:9], message.message[:9], outcome)


@pytest.mark.parametrize("channel_type", ["slack", "discord", "teams", "servicenow"])
async def test_what_is_cut_says_where_the_whole_is(channel_type: str, sender: Sender, desk: Receiver) -> None:
    desk.always = strict(channel_type)
    url = "http://prefect.example.com/runs/flow-run/1"
    for metadata, place in ((None, "/api/v1/alerts/01ALERT"), ({"prefect_url": url}, url)):
        message = replace(MESSAGE, message=TEXTS["enormous"], metadata=metadata)
        assert (await sender.send(channel_at(channel_type, desk), message, None)).sent
        assert f"the whole text: {place})" in json.dumps(desk.posts[-1].json, ensure_ascii=False)
    assert (await sender.send(channel_at(channel_type, desk), MESSAGE, None)).sent
    assert "whole text" not in json.dumps(desk.posts[-1].json)


async def test_pagerduty_gets_the_whole_message_beside_the_summary(sender: Sender, desk: Receiver) -> None:
    desk.always = strict("pagerduty")
    text = "ValueError: rows\n" + "at line 9 " * 900
    message = replace(MESSAGE, message=text, domain="finra.otc", run_id="r-1", problem_key="run-failed:1")
    message = replace(message, metadata={"prefect_url": "http://prefect.example.com/r-1"}, error_category="SOURCE")
    assert (await sender.send(channel_at("pagerduty", desk), message, None)).sent
    event = desk.posts[0].json
    assert (event["routing_key"], event["event_action"], event["dedup_key"]) == ("R" * 32, "trigger", "run-failed:1")
    assert event["links"] == [{"href": "http://prefect.example.com/r-1", "text": "Run in Prefect"}]
    payload = event["payload"]
    assert payload["summary"] == "[ERROR] Rows are missing: ValueError: rows"
    assert (payload["severity"], payload["source"], payload["group"]) == ("error", "desk.load", "finra.otc")
    assert payload["class"] == "SOURCE"
    details = payload["custom_details"]
    assert (details["message"], details["run_id"], details["alert"]) == (text, "r-1", "/api/v1/alerts/01ALERT")


async def test_a_recovery_resolves_each_problem_at_pagerduty(sender: Sender, desk: Receiver) -> None:
    keys = ("run-failed:1", "x" * 300)
    assert (await sender.send(channel_at("pagerduty", desk), replace(MESSAGE, resolved_keys=keys), None)).sent
    events = [(post.json["event_action"], post.json["dedup_key"]) for post in desk.posts]
    assert [action for action, _ in events] == ["resolve", "resolve"]
    assert events[0][1] == "run-failed:1"
    assert len(events[1][1]) == 64
    # The same key as of the event that opened the incident.
    assert (await sender.send(channel_at("pagerduty", desk), replace(MESSAGE, problem_key=keys[1]), None)).sent
    assert desk.posts[2].json["dedup_key"] == events[1][1]


async def test_an_apprise_url_keeps_to_the_limits_of_its_plugin(sender: Sender, desk: Receiver) -> None:
    url = f"json://127.0.0.1:{desk.port}/a"
    channel = CHANNEL_TYPES["apprise"].model_validate({"url": url})
    plugin = channel.plugin(MESSAGE, None, {})
    for text in (*TEXTS.values(), "x" * 60_000):
        assert (await sender.send(channel, replace(MESSAGE, message=text, title="漢" * 500), None)).sent
        sent = desk.posts[-1].json
        assert len(sent["message"]) <= plugin.body_maxlen
        assert len(sent["title"]) <= plugin.title_maxlen


@pytest.mark.parametrize(
    "url", ["tgram://123456789:abcdefg_hijklmnop/12315544", "discord://4174216298/JHMHI8qBe7bk2ZwO5U"]
)
def test_what_a_service_gets_is_no_longer_than_its_plugin_allows(url: str) -> None:
    from spine.alerts.transport import _formatted

    channel = CHANNEL_TYPES["apprise"].model_validate({"url": url})
    for text in TEXTS.values():
        message = replace(MESSAGE, message=text)
        plugin = channel.plugin(message, None, {})
        title, body = _formatted(plugin, channel.shown(message.headline), channel.shown(message.text), message.link)
        assert utf16_units(title) * (plugin.title_maxlen <= 0) + utf16_units(body) <= plugin.body_maxlen


def test_text_is_cut_as_the_receiver_counts_and_never_within_a_character() -> None:
    assert fit("x" * 10, 10) == "x" * 10
    assert fit("x" * 11, 10) == "x" * 9 + "…"
    assert fit("🙂" * 6, 10, measure=utf16_units) == "🙂" * 4 + "…"
    assert fit("漢" * 5, 10, measure=utf8_bytes) == "漢" * 2 + "…"
    assert fit("e\u0301" * 6, 10) == "e\u0301" * 4 + "…"
    assert fit("🇨🇭" * 6, 10) == "🇨🇭" * 4 + "…"
    assert fit("👍🏽" * 6, 10) == "👍🏽" * 4 + "…"
    assert fit(FAMILY * 3, 10) == FAMILY + "…"
    assert fit("x" * 200, 100, "/api/v1/alerts/1").endswith("x… (cut; the whole text: /api/v1/alerts/1)")
    for limit in range(1, 60):
        assert len(fit(FAMILY * 20, limit, "/api/v1/alerts/1")) <= limit


def test_the_test_of_a_channel_sends_a_message_of_the_greatest_length_too(
    sqlite_alerts: Alerts, desk: Receiver
) -> None:
    channel = sqlite_alerts.channel(desk)
    tested = sqlite_alerts.client.post(f"/alerts/channels/{channel['id']}/test").json()
    assert (tested["success"], tested["message"]) == (True, "The test messages were sent.")
    assert [len(post.json["message"]) for post in desk.posts][1:] == [20_000]

    def refuse_long(handler: Handler) -> None:
        handler.answer(400 if len(desk.posts[-1].body) > 2_000 else 200, b"too long")

    desk.always = refuse_long
    tested = sqlite_alerts.client.post(f"/alerts/channels/{channel['id']}/test").json()
    assert tested["success"] is False
    assert "HTTP 400" in tested["message"]
    sqlite_alerts.client.delete(f"/alerts/channels/{channel['id']}")
