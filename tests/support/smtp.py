"""A real SMTP server on loopback: plain, with STARTTLS or implicit TLS, with login, or in a bad mood."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.processes import free_port

LOGIN = LoginPassword(b"spine", b"sm7p-pa55word")


@dataclass
class Mailbox:
    """What the server took; `answers` are given to the next recipients instead of 250."""

    port: int
    messages: list[tuple[list[str], Message]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    logins: int = 0
    # What it says to every login instead of checking it.
    refusal: str | None = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        """Take or refuse a recipient."""
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep a message."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.messages.append((list(envelope.rcpt_tos), message_from_bytes(content)))
        return "250 taken"

    def check(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        """Check a login."""
        self.logins += 1
        if self.refusal is not None:
            return AuthResult(success=False, handled=False, message=self.refusal)
        # Not handled: the server is to say that it was refused.
        return AuthResult(success=data == LOGIN, handled=False)


@contextmanager
def mail_server(authority: trustme.CA, mode: str = "plain", login: bool = False) -> Iterator[Mailbox]:
    """A server in mode `plain`, `starttls` or `ssl`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    mailbox = Mailbox(free_port())
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=mailbox.port,
        ssl_context=context if mode == "ssl" else None,
        tls_context=context if mode == "starttls" else None,
        require_starttls=mode == "starttls",
        authenticator=mailbox.check if login else None,
        auth_required=login,
        auth_require_tls=mode == "starttls",
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
