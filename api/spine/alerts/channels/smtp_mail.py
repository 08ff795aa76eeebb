"""A mail in plain text over SMTP: Apprise 2 puts a long subject on one line, which servers refuse."""

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.header import Header
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, make_msgid
from typing import Any, Literal

from apprise import NotifyType
from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ASSET
from spine.egress.tls import modern

# A longer word cannot be folded as it is, but as encoded text.
LONGEST_LINE, LONGEST_WORD = 76, 60
LONGEST_SUBJECT = 600

TlsMode = Literal["plain", "starttls", "implicit"]


@dataclass(frozen=True)
class MailServer:
    """Where and how a mail is handed over."""

    host: str
    port: int
    tls: TlsMode
    login: tuple[str, str] | None


class SmtpMail(NotifyBase):
    """Sends a mail to one recipient, over a connection of its own."""

    service_name = "Mail"  # type: ignore[assignment]
    request_rate_per_sec = 0
    # Apprise's default is for services that it knows nothing of; mail has no such limit.
    title_maxlen = LONGEST_SUBJECT

    def __init__(self, server: MailServer, sender: str, recipient: str, delivery_id: str) -> None:
        super().__init__(asset=ASSET)  # type: ignore[no-untyped-call]
        self._server = server
        self._sender = sender
        self._recipient = recipient
        self._delivery_id = delivery_id

    def url(self, *args: Any, **kwargs: Any) -> str:
        """A placeholder, because Apprise logs this."""
        return "mail://"

    def send(self, body: str, title: str = "", notify_type: Any = NotifyType.INFO, **kwargs: Any) -> bool:
        """Hand the mail over; the reason of a failure is in the log."""
        try:
            smtp = self._connect()
            try:
                self._login(smtp)
                smtp.send_message(self._mail(title, body), self._sender, [self._recipient])
            finally:
                # A server that hangs up now has already said whether it takes the mail.
                with suppress(OSError, smtplib.SMTPException):
                    smtp.quit()
        except (OSError, smtplib.SMTPException) as error:
            self.logger.debug("Socket Exception: %s", error)
            return False
        return True

    def _connect(self) -> smtplib.SMTP:
        host, port, seconds = self._server.host, self._server.port, self.socket_connect_timeout
        if self._server.tls == "implicit":
            return smtplib.SMTP_SSL(host, port, timeout=seconds, context=modern(ssl.create_default_context()))
        return smtplib.SMTP(host, port, timeout=seconds)

    def _login(self, smtp: smtplib.SMTP) -> None:
        if self._server.tls == "starttls":
            smtp.starttls(context=modern(ssl.create_default_context()))
        if self._server.login is not None:
            smtp.login(*self._server.login)

    def _mail(self, title: str, body: str) -> MIMEText:
        mail = MIMEText(body, "plain", "utf-8")
        mail["Subject"] = _folded(" ".join(title.split()))
        mail["From"] = formataddr((ASSET.app_id, self._sender))
        mail["To"] = self._recipient
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        mail["X-Spine-Delivery"] = self._delivery_id
        return mail


def _folded(title: str) -> str:
    """The title as a header of several lines: a server refuses a line of more than 998 octets."""
    longest_word = max(map(len, title.split()), default=0)
    charset = "utf-8" if not title.isascii() or longest_word > LONGEST_WORD else "us-ascii"
    return Header(title, charset, header_name="Subject", maxlinelen=LONGEST_LINE).encode()
