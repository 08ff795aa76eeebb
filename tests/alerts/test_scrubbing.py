"""Whatever a receiver answers, the reason of an outcome contains no secret."""

import asyncio
import gc
import logging
import time
from typing import Any

import pytest
from pydantic import SecretStr
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.webhook import WebhookConfig
from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.scrubbing import scrub, secret_parts
from spine.alerts.transport import Sender
from spine.errors import BadRequest, SpineError, Unavailable

from tests.alerts.transport_support import MESSAGE, hook, refuse_with_text
from tests.support.receivers import (
    Receiver,
    bad_headers,
    refuse,
)


@pytest.mark.parametrize(
    ("error", "permanent"), [(BadRequest("The secret is gone."), True), (Unavailable("Out."), False)]
)
async def test_a_failed_lookup_of_a_secret_is_the_reason(error: SpineError, permanent: bool) -> None:
    async def fails(ref: str) -> str:
        raise error

    sender = Sender(True, fails)
    config = CHANNEL_TYPES["servicenow"].model_validate(
        {"instance": "dev1", "username": "u", "password_ref": "env:PW", "assignment_group": "g"}
    )
    outcome = await sender.send(config, MESSAGE, None)
    sender.close()
    assert outcome == Outcome(sent=False, reason=error.detail, permanent=permanent)


ECHOED = [
    ({"headers": {"X-Auth": 'quo"ted <s3cret> & more'}}, "{X-Auth}", "quo"),
    ({"headers": {"X-Auth": 'quo"ted-s3cret'}}, r"quo\"ted-s3cret", "s3cret"),
    ({"headers": {"X-Auth": "a<s3cret>&b"}}, "a&lt;s3cret&gt;&amp;b", "s3cret"),
    ({"headers": {"X-Auth": "two words s3cret"}}, "two+words+s3cret two%20words%20s3cret", "s3cret"),
    ({"headers": {"X-Auth": "tok/n=s3cret"}}, "tok%2fn%3ds3cret", "s3cret"),
    ({"secret": "hm4c-s3cret"}, "hm4c-s3cret", "s3cret"),
    ({"secret": "UPPER-s3cret"}, "upper-S3CRET", "S3CRET"),
    ({}, "{path}", "s3cr3t"),
]


@pytest.mark.parametrize(("fields", "said", "hidden"), ECHOED)
async def test_a_reason_contains_no_secret_in_any_encoding(
    sender: Sender, desk: Receiver, fields: dict[str, Any], said: str, hidden: str
) -> None:
    desk.always = refuse_with_text(said)
    outcome = await sender.send(hook(desk, **fields), MESSAGE, None)
    assert (outcome.reason or "").startswith("HTTP 403 Forbidden: ")
    assert hidden not in (outcome.reason or "")
    assert "***" in (outcome.reason or "")


@pytest.mark.parametrize("login", ["desk:pa55word", "d:p4", "de%40sk:p%3Aw", "only-a-t0ken"])
async def test_a_repeated_login_is_masked(sender: Sender, desk: Receiver, login: str) -> None:
    desk.always = refuse_with_text("who is {Authorization}?")
    url = desk.url.replace("http://", f"http://{login}@" if ":" in login else f"http://{login}:@")
    outcome = await sender.send(hook(desk, url=url), MESSAGE, None)
    assert outcome.reason == "HTTP 403 Forbidden: who is Basic ***?"


async def test_a_short_secret_does_not_garble_the_status(sender: Sender, desk: Receiver) -> None:
    desk.always = refuse(403, b"40 of them")
    outcome = await sender.send(hook(desk, headers={"X-Auth": "40"}), MESSAGE, None)
    assert outcome.reason == "HTTP 403 Forbidden: *** of them"


async def test_a_long_answer_is_cut_without_leaving_part_of_a_secret(sender: Sender, desk: Receiver) -> None:
    desk.always = refuse(403, b"x" * 260 + b"hm4c-s3cret" * 30)
    outcome = await sender.send(hook(desk, secret="hm4c-s3cret"), MESSAGE, None)
    assert outcome.reason is not None
    assert len(outcome.reason) <= 300
    assert "hm4c" not in outcome.reason


async def test_all_parts_of_an_apprise_url_are_masked() -> None:
    config = CHANNEL_TYPES["apprise"].model_validate(
        {"url": "tgram://123456789:abcdefg_hijklmnop/12315544/?x=t0pSecret"}
    )
    text = "post to /bot123456789:abcdefg_hijklmnop/send for 12315544 with t0pSecret and abcdefg_hijklmnop"
    assert scrub(text, secret_parts(config, {})) == "post to /bot***/send for *** with *** and ***"


async def test_nothing_of_a_send_reaches_the_log(
    sender: Sender, desk: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(WebhookConfig):
        def plugin(self, message: AlertMessage, recipient: str | None, secrets: Any) -> Any:
            time.sleep(3)
            raise RuntimeError("s3cret-in-an-error")

    apprise_url = CHANNEL_TYPES["apprise"].model_validate({"url": f"json://127.0.0.1:{desk.port}/s3cret-path"})
    desk.always = refuse(500, b"s3cret")
    desk.behaviours.append(bad_headers)
    with caplog.at_level(logging.DEBUG):
        assert not (await sender.send(hook(desk), MESSAGE, None)).sent
        assert not (await sender.send(apprise_url, MESSAGE, None)).sent
        assert not (await sender.send(Broken(url=SecretStr(desk.url)), MESSAGE, None)).sent
        await asyncio.sleep(1.5)
        gc.collect()
        await asyncio.sleep(0.1)
    # Only pytest listens to loggers that do not propagate.
    assert not logging.getLogger("apprise").propagate
    records = [one for one in caplog.records if one.name != "apprise"]
    assert "s3cr" not in "".join(map(str, [one.getMessage() for one in records]))
    assert [one for one in records if one.levelno > logging.INFO] == []


NOT_FOLLOWED = "; redirects are not followed"


@pytest.mark.parametrize(
    ("path", "status", "body", "reason"),
    [
        (
            "/redir",
            307,
            b"moved, see the redirection",
            f"HTTP 307 Temporary Redirect: moved, see the redirection{NOT_FOLLOWED}",
        ),
        ("/redirect", 307, b"", f"HTTP 307 Temporary Redirect{NOT_FOLLOWED}"),
        ("/hook", 404, b"no webhooks of hookers", "HTTP 404 Not Found: no webhooks of hookers"),
        # Alone, each is masked, and so is what is more than a word.
        ("/redir", 404, b"no /redir here", "HTTP 404 Not Found: no /*** here"),
        ("/redir1", 404, b"no xredir1x here", "HTTP 404 Not Found: no x***x here"),
    ],
)
async def test_words_that_contain_a_part_of_the_url_are_no_secrets(
    sender: Sender, desk: Receiver, path: str, status: int, body: bytes, reason: str
) -> None:
    desk.always = refuse(status, body)
    channel = hook(desk, url=f"http://127.0.0.1:{desk.port}{path}")
    assert (await sender.send(channel, MESSAGE, None)).reason == reason
