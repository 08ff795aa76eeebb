"""Email through a real SMTP server: TLS, login, and one message to each recipient."""

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import trustme
from spine.alerts.channels.email import EmailConfig
from spine.alerts.messages import Outcome
from spine.alerts.transport import Sender

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.leaks import find_leaks
from tests.alerts.support import Alerts
from tests.alerts.transport_support import MESSAGE, resolve
from tests.support.smtp import Mailbox, mail_server
from tests.support.stack import PrefectStack, api_process


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def mail_alerts(
    stack: PrefectStack, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alerts]:
    """Alerts over an API that trusts the authority and knows the password."""
    folder = Path(tmp_path_factory.mktemp("mail"))
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    more = {
        **FAST_RETRIES,
        "SSL_CERT_FILE": str(bundle),
        "SPINE_SECRET_DESK_PASSWORD": "sm7p-pa55word",
        "SPINE_SECRET_OLD_PASSWORD": "wr0ng-pa55word",
    }
    with api_process(stack.url, stack.home, folder / "api", **more) as api:
        yield Alerts(api)
        assert find_leaks(api) == set()


def config(mailbox: Mailbox, **fields: Any) -> dict[str, Any]:
    return {
        "smtp_host": "127.0.0.1",
        "smtp_port": mailbox.port,
        "from_address": "spine@example.com",
        "recipients": ["a@example.com"],
        "use_tls": False,
        **fields,
    }


def text_of(message: Message) -> str:
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    payload = parts[0].get_payload(decode=True)
    return payload.decode() if isinstance(payload, bytes) else ""


def test_each_recipient_gets_a_message_and_a_delivery(mail_alerts: Alerts, authority: trustme.CA) -> None:
    with mail_server(authority) as mailbox:
        channel = mail_alerts.channel(
            channel_type="email", config=config(mailbox, recipients=["a@example.com", "b@example.com"])
        )
        # The first attempt for one of them is deferred; the other recipient gets the message once.
        mailbox.answers += ["451 4.7.1 try later"]
        shown = mail_alerts.settled(mail_alerts.alert(message="Zeilen fehlen: äöü"))
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert {one["recipient"] for one in shown["deliveries"]} == {"a@example.com", "b@example.com"}
    assert sorted(one["attempt"] for one in shown["deliveries"]) == [1, 2]
    assert sorted(recipients for recipients, _ in mailbox.messages) == [["a@example.com"], ["b@example.com"]]
    for (recipient,), message in mailbox.messages:
        assert "[ERROR] Rows are missing" in str(message["Subject"])
        assert "äöü" in text_of(message)
        (delivery,) = (one for one in shown["deliveries"] if one["recipient"] == recipient)
        assert message["X-Spine-Delivery"] == delivery["id"]


@pytest.mark.parametrize("mode", ["starttls", "ssl"])
def test_tls_and_login(mail_alerts: Alerts, authority: trustme.CA, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    login = {"smtp_user": "spine", "smtp_password_ref": "env:SPINE_SECRET_DESK_PASSWORD", "use_tls": True}
    with mail_server(authority, mode, login=mode == "starttls") as mailbox:
        fields = login if mode == "starttls" else {"use_tls": "implicit"}
        channel = mail_alerts.channel(channel_type="email", config=config(mailbox, **fields))
        assert mail_alerts.delivery(mail_alerts.alert())["status"] == "SENT"
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert len(mailbox.messages) == 1
    assert mailbox.logins == (1 if mode == "starttls" else 0)


def test_a_wrong_password_is_not_retried_and_not_shown_in_the_error(mail_alerts: Alerts, authority: trustme.CA) -> None:
    login = {"smtp_user": "spine", "smtp_password_ref": "env:SPINE_SECRET_OLD_PASSWORD", "use_tls": True}
    with mail_server(authority, "starttls", login=True) as mailbox:
        channel = mail_alerts.channel(channel_type="email", config=config(mailbox, **login))
        delivery = mail_alerts.delivery(mail_alerts.alert())
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert (delivery["status"], delivery["attempt"]) == ("FAILED", 1)
    assert delivery["error"].startswith("535 ")
    assert "wr0ng" not in str(delivery)


def test_a_refused_recipient_is_not_retried(mail_alerts: Alerts, authority: trustme.CA) -> None:
    with mail_server(authority) as mailbox:
        channel = mail_alerts.channel(channel_type="email", config=config(mailbox))
        mailbox.answers += ["550 5.1.1 nobody of that name"]
        delivery = mail_alerts.delivery(mail_alerts.alert())
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert (delivery["status"], delivery["attempt"], delivery["error"]) == (
        "FAILED",
        1,
        "550 5.1.1 nobody of that name",
    )


def test_a_certificate_of_an_unknown_authority_is_refused(mail_alerts: Alerts) -> None:
    with mail_server(trustme.CA(), "starttls") as mailbox:
        channel = mail_alerts.channel(channel_type="email", config=config(mailbox, use_tls=True))
        result = mail_alerts.client.post(f"/alerts/channels/{channel['id']}/test").json()
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert (result["success"], result["response"]["reason"]) == (False, "its certificate cannot be verified")
    assert mailbox.messages == []


def test_a_missing_secret_is_reported(mail_alerts: Alerts, authority: trustme.CA) -> None:
    login = {"smtp_user": "spine", "smtp_password_ref": "env:SPINE_SECRET_NO_SUCH_VARIABLE"}
    with mail_server(authority) as mailbox:
        channel = mail_alerts.channel(channel_type="email", config=config(mailbox, **login))
        result = mail_alerts.client.post(f"/alerts/channels/{channel['id']}/test").json()
        mail_alerts.client.delete(f"/alerts/channels/{channel['id']}")
    assert result["success"] is False
    assert "SPINE_SECRET_NO_SUCH_VARIABLE" in result["response"]["reason"]


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async def resolve(ref: str) -> str:
        return {"env:OLD": "wr0ng-pa55word"}.get(ref, "sm7p-pa55word")

    made = Sender(True, resolve, seconds=5)
    yield made
    made.close()


async def send_one(sender: Sender, mailbox: Mailbox, **fields: Any) -> Outcome:
    """Send one message whose title has several lines."""
    channel = EmailConfig.model_validate(config(mailbox, **fields))
    message = replace(MESSAGE, title="Rows are missing\r\nBcc: eve@example.com\r\n\r\nhello")
    return await sender.send(channel, message, "a@example.com")


async def test_a_title_with_line_breaks_cannot_add_headers(sender: Sender, authority: trustme.CA) -> None:
    with mail_server(authority) as mailbox:
        assert (await send_one(sender, mailbox)).sent
    ((recipients, message),) = mailbox.messages
    assert recipients == ["a@example.com"]
    assert message["Bcc"] is None
    assert "3 of 9" in text_of(message)


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        ("550 5.1.1 nobody", True),
        ("530 5.7.0 log in", True),
        ("451 4.7.1 later", False),
        ("421 4.3.2 closing", False),
        ('550-5.1.1 nobody\r\n550 it\'s "so"', True),
    ],
)
async def test_a_refusal_is_permanent_or_temporary_by_its_status(
    sender: Sender, authority: trustme.CA, answer: str, permanent: bool
) -> None:
    with mail_server(authority) as mailbox:
        mailbox.answers.append(answer)
        outcome = await send_one(sender, mailbox)
    assert (outcome.sent, outcome.status, outcome.permanent) == (False, int(answer[:3]), permanent)
    assert (outcome.reason or "").startswith(answer[:3])
    assert "\\" not in (outcome.reason or "")


@pytest.mark.parametrize("use_tls", ["starttls", "implicit"])
async def test_a_server_with_an_untrusted_certificate_gets_neither_mail_nor_password(
    sender: Sender, use_tls: str
) -> None:
    login = {"smtp_user": "spine", "smtp_password_ref": "env:NEW"}
    with mail_server(trustme.CA(), "ssl" if use_tls == "implicit" else "starttls", login=True) as mailbox:
        outcome = await send_one(sender, mailbox, use_tls=use_tls, **login)
    assert outcome == Outcome(sent=False, reason="its certificate cannot be verified")
    assert (mailbox.messages, mailbox.logins) == ([], 0)


async def test_nothing_is_sent_without_tls_if_tls_is_configured(sender: Sender, authority: trustme.CA) -> None:
    with mail_server(authority) as mailbox:
        outcome = await send_one(sender, mailbox, use_tls="starttls")
    assert (outcome.sent, outcome.permanent, mailbox.messages) == (False, False, [])


@pytest.mark.parametrize("login_text", ["wr0ng-pa55word", "\0spine\0wr0ng-pa55word", "spine:wr0ng-pa55word"])
async def test_a_login_that_a_server_repeats_is_masked(sender: Sender, authority: trustme.CA, login_text: str) -> None:
    login = {"smtp_user": "spine", "smtp_password_ref": "env:OLD"}
    with mail_server(authority) as mailbox:
        mailbox.answers.append(f"550 not with {b64encode(login_text.encode()).decode()}")
        outcome = await send_one(sender, mailbox)
        assert "***" not in (outcome.reason or "")
    with mail_server(authority, login=True) as mailbox:
        mailbox.refusal = f"535 not with {b64encode(login_text.encode()).decode()}"
        outcome = await send_one(sender, mailbox, **login)
    assert outcome == Outcome(False, 535, "535 not with ***", permanent=True)


async def test_a_refused_connection_to_the_server_has_a_readable_reason(sender: Sender, authority: trustme.CA) -> None:
    with mail_server(authority) as mailbox:
        pass
    assert await send_one(sender, mailbox) == Outcome(sent=False, reason="the connection was refused")


@pytest.mark.parametrize("title", ["漢" * 240, "x" * 500, "\N{MAN}\u200d\N{GIRL} " * 100, "naïve " * 80, "plain"])
async def test_no_line_of_a_mail_is_too_long_and_the_title_arrives_whole(title: str, authority: trustme.CA) -> None:
    sender = Sender(True, resolve, seconds=9)
    with mail_server(authority) as mailbox:
        channel = EmailConfig.model_validate(config(mailbox))
        message = replace(MESSAGE, title=title, message="x" * 20_000)
        outcome = await sender.send(channel, message, "a@example.com")
        assert outcome.sent, outcome
        ((_, mail),) = mailbox.messages
    sender.close()
    assert str(make_header(decode_header(mail["Subject"]))) == f"[ERROR] {title.strip()}"
    assert max(map(len, mail.as_bytes().splitlines())) <= 998
    assert max(map(len, str(mail["Subject"]).splitlines())) <= 78
