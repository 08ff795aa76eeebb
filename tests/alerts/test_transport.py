"""One attempt to send: bounded in time, with a readable reason that contains no secret."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from spine.alerts.channels import CHANNEL_TYPES
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.webhook import WebhookConfig
from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.transport import Sender
from spine.egress.http_replies import LONGEST_WAIT, parse_retry_after, recorded_replies

from tests.alerts.transport_support import MESSAGE, hook, resolve
from tests.support.receivers import (
    Behaviour,
    Receiver,
    drip,
    drop,
    hang,
    redirect_endlessly,
    refuse,
)
from tests.support.variants import one_by_default

PERMANENT = [301, 302, 307, 400, 401, 403, 404, 405, 410, 413, 415, 422, 451]
TEMPORARY = [408, 409, 421, 423, 425, 429, 500, 502, 503, 504]


@pytest.mark.parametrize("status", PERMANENT + TEMPORARY)
async def test_a_failure_is_permanent_or_temporary_by_its_status(sender: Sender, desk: Receiver, status: int) -> None:
    desk.always = refuse(status, b"so\r\nsay we", Retry_After="7", Location="/elsewhere")
    outcome = await sender.send(hook(desk), MESSAGE, None)
    assert (outcome.sent, outcome.status, outcome.permanent) == (False, status, status in PERMANENT)
    assert outcome.retry_after == 7
    assert outcome.reason is not None
    assert outcome.reason.startswith(f"HTTP {status} ")
    assert "so say we" in outcome.reason
    assert len(desk.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_sent(sender: Sender, desk: Receiver, status: int) -> None:
    desk.always = refuse(status)
    outcome = await sender.send(hook(desk), MESSAGE, None)
    assert (outcome.sent, outcome.status) == (True, status)


@pytest.mark.parametrize(
    "headers",
    [{"Content_Type": "text/plain; charset=no-such-thing"}, {"Content_Encoding": "gzip"}, {"Content_Type": "\xff"}],
    ids=["charset", "gzip", "type"],
)
async def test_a_2xx_whose_body_cannot_be_read_is_sent(sender: Sender, desk: Receiver, headers: dict[str, str]) -> None:
    desk.always = refuse(200, b"taken", **headers)
    assert (await sender.send(hook(desk), MESSAGE, None)).sent


@pytest.mark.parametrize("location", ["http://[", "http://x:y/", "//", "\x00"])
async def test_a_redirect_with_an_invalid_target_is_still_a_redirect(
    sender: Sender, desk: Receiver, location: str
) -> None:
    desk.always = refuse(302, Location=location)
    outcome = await sender.send(hook(desk), MESSAGE, None)
    assert (outcome.status, outcome.permanent) == (302, True)
    assert "redirects are not followed" in (outcome.reason or "")


async def test_the_body_of_a_redirect_is_read_only_up_to_the_limit(sender: Sender, desk: Receiver) -> None:
    desk.always = redirect_endlessly
    outcome = await sender.send(hook(desk), MESSAGE, None)
    assert (outcome.status, outcome.permanent) == (302, True)
    await asyncio.sleep(0.2)
    assert desk.talked < 8 * 1024 * 1024


@pytest.mark.parametrize("behaviour", one_by_default([hang, drip]), ids=["hang", "drip"])
async def test_a_receiver_that_never_answers_times_out(sender: Sender, desk: Receiver, behaviour: Behaviour) -> None:
    desk.always = behaviour
    began = time.monotonic()
    outcome = await sender.send(hook(desk), MESSAGE, None)
    assert outcome == Outcome(sent=False, reason="no answer within 2 s")
    assert time.monotonic() - began < 3.5


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/nobody", "the connection was refused"),
        ("http://nobody.invalid/hook", "its host name does not resolve"),
    ],
)
async def test_an_unreachable_host_has_a_readable_reason(sender: Sender, url: str, reason: str) -> None:
    outcome = await sender.send(WebhookConfig(url=SecretStr(url)), MESSAGE, None)
    assert outcome == Outcome(sent=False, reason=reason)


async def test_a_dropped_connection_has_a_readable_reason(sender: Sender, desk: Receiver) -> None:
    desk.always = drop
    assert await sender.send(hook(desk), MESSAGE, None) == Outcome(sent=False, reason="it closed the connection")


async def test_a_private_address_is_a_permanent_failure(desk: Receiver) -> None:
    sender = Sender(False, resolve, seconds=2)
    outcome = await sender.send(hook(desk), MESSAGE, None)
    sender.close()
    assert (outcome.sent, outcome.permanent, desk.requests) == (False, True, [])
    assert "127.0.0.1 is a private address" in (outcome.reason or "")


@pytest.mark.parametrize("problem", [RuntimeError("pl4in-s3cret"), TypeError(), SystemExit(3), MemoryError()])
async def test_an_exception_of_a_plugin_becomes_an_outcome_without_secrets(
    sender: Sender, desk: Receiver, problem: BaseException
) -> None:
    class Broken(WebhookConfig):
        def plugin(self, message: AlertMessage, recipient: str | None, secrets: Any) -> Any:
            raise problem

    outcome = await sender.send(Broken(url=SecretStr(desk.url), secret=SecretStr("pl4in-s3cret")), MESSAGE, None)
    assert not outcome.sent
    assert "s3cret" not in (outcome.reason or "")


async def test_a_closed_sender_ends_its_sends_and_refuses_new_ones(desk: Receiver) -> None:
    sender = Sender(True, resolve, seconds=5)
    desk.always = hang
    under_way = asyncio.create_task(sender.send(hook(desk), MESSAGE, None))
    await asyncio.to_thread(desk.wait_for, 1)
    began = time.monotonic()
    sender.close()
    assert not (await under_way).sent
    assert not (await sender.send(hook(desk), MESSAGE, None)).sent
    assert time.monotonic() - began < 2


@pytest.mark.slow
async def test_slow_sends_do_not_delay_other_sends(desk: Receiver, other_desk: Receiver) -> None:
    sender = Sender(True, resolve, seconds=2)
    desk.always = hang
    slow = [asyncio.create_task(sender.send(hook(desk), MESSAGE, None)) for _ in range(20)]
    await asyncio.to_thread(desk.wait_for, 20)
    began = time.monotonic()
    assert (await sender.send(hook(other_desk), MESSAGE, None)).sent
    assert time.monotonic() - began < 1
    assert {outcome.reason for outcome in await asyncio.gather(*slow)} == {"no answer within 2 s"}
    sender.close()


@pytest.mark.slow
async def test_a_send_that_timed_out_while_queued_is_not_sent_later(desk: Receiver, other_desk: Receiver) -> None:
    class Stuck(WebhookConfig):
        def plugin(self, message: AlertMessage, recipient: str | None, secrets: Any) -> Any:
            time.sleep(2.5)

    sender = Sender(True, resolve, seconds=1, max_in_flight=1)
    slow = asyncio.create_task(sender.send(Stuck(url=SecretStr(desk.url)), MESSAGE, None))
    await asyncio.sleep(0.2)
    assert not (await sender.send(hook(other_desk), MESSAGE, None)).sent
    await slow
    await asyncio.sleep(2)
    assert other_desk.requests == []
    sender.close()


ENDS = """
import asyncio
from spine.alerts.transport import Sender
from tests.alerts.test_transport import MESSAGE, WebhookConfig, resolve

async def main():
    sender = Sender(True, resolve, seconds=20)
    task = asyncio.create_task(sender.send(WebhookConfig(url={url!r}), MESSAGE, None))
    await asyncio.sleep(1.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    sender.close()
    print("closed", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_cancelled_send_does_not_delay_the_end_of_the_process(desk: Receiver) -> None:
    desk.always = hang
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", ENDS.format(url=desk.url)], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "closed\n", ended.stderr
    assert len(desk.posts) == 1
    assert time.monotonic() - began < 15


async def test_a_receiver_cannot_make_a_plugin_sleep(sender: Sender, desk: Receiver) -> None:
    # Fluxer's plugin waits until the moment that a receiver names, and then tries again.
    later = str(int(time.time()) + 3600)
    desk.always = refuse(429, X_RateLimit_Remaining="0", X_RateLimit_Reset=later, Retry_After="3600")
    config = CHANNEL_TYPES["apprise"].model_validate({"url": f"fluxer://127.0.0.1:{desk.port}/{'1' * 10}/{'t' * 68}"})
    outcome = await sender.send(config, MESSAGE, None)
    assert desk.posts
    assert (outcome.status, outcome.retry_after) == (429, 3600)


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("Fri, 02 Jan 9999 03:00:00 GMT", LONGEST_WAIT),
        ("99999999999999999999", LONGEST_WAIT),
        ("9" * 5000, LONGEST_WAIT),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_parsed_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


def test_requests_is_unchanged_outside_of_a_send(desk: Receiver, other_desk: Receiver) -> None:
    desk.always = refuse(302, Location=other_desk.url)
    other_desk.always = refuse(200, b"x" * 100_000)
    followed = requests.get(desk.url, timeout=5)
    assert (followed.status_code, len(followed.content)) == (200, 100_000)
    with recorded_replies() as replies:
        stayed = requests.get(desk.url, timeout=5)
        long = requests.get(other_desk.url, timeout=5)
    assert [reply.status for reply in replies] == [stayed.status_code, long.status_code] == [302, 200]
    assert len(long.content) == len(long.text) == 65536


async def test_replies_to_concurrent_sends_are_kept_apart(sender: Sender, desk: Receiver, other_desk: Receiver) -> None:
    desk.always, other_desk.always = refuse(500, b"first"), refuse(404, b"second")
    configs: list[ChannelConfig] = [hook(desk), hook(other_desk)] * 10
    outcomes = await asyncio.gather(*(sender.send(config, MESSAGE, None) for config in configs))
    assert [outcome.status for outcome in outcomes] == [500, 404] * 10
    assert all(("first" in str(one.reason)) == (one.status == 500) for one in outcomes)
