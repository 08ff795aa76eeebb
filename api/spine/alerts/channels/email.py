"""Email over SMTP, one message to each recipient."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from apprise.plugins.base import NotifyBase
from apprise.utils.parse import is_email, parse_emails
from pydantic import AfterValidator, Field, model_validator

from spine.alerts.channels.base import ChannelConfig, Place, ShortText
from spine.alerts.channels.smtp_mail import MailServer, SmtpMail, TlsMode
from spine.alerts.inert_text import readable
from spine.alerts.messages import AlertMessage
from spine.egress.hosts import check_host
from spine.secrets.refs import check_ref

IMPLICIT_TLS_PORT = 465


def _is_address(address: str) -> str:
    parsed = is_email(address)
    # Apprise drops what it cannot parse: it would write to another address, or to none.
    if not parsed or parsed["full_email"] != address or parse_emails([address]) != [address]:
        raise ValueError("must be an email address such as desk@example.com")
    return address


Address = Annotated[str, Field(max_length=320), AfterValidator(_is_address)]


class EmailConfig(ChannelConfig):
    """An SMTP server and the recipients."""

    smtp_host: Annotated[ShortText, AfterValidator(check_host)]
    smtp_port: Annotated[int, Field(ge=1, le=65535)]
    smtp_user: ShortText | None = None
    smtp_password_ref: Annotated[ShortText, AfterValidator(check_ref)] | None = None
    from_address: Address
    recipients: Annotated[list[Address], Field(min_length=1, max_length=50)]
    # True: implicit TLS on port 465, STARTTLS on other ports. The two words set the mode for any port.
    use_tls: bool | Literal["starttls", "implicit"] = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.recipients)) < len(self.recipients):
            raise ValueError("recipients: each address may occur only once")
        if (self.smtp_user is None) != (self.smtp_password_ref is None):
            raise ValueError("smtp_user and smtp_password_ref belong together: set both or neither")
        return self

    def endpoints(self) -> list[Place]:
        """The SMTP server."""
        return [(self.smtp_host, self.smtp_port)]

    def receivers(self) -> list[str | None]:
        """Each address separately, so that a retry for one of them does not send the mail to the others again."""
        return list(self.recipients)

    @property
    def _tls_mode(self) -> TlsMode:
        if not self.use_tls:
            return "plain"
        implicit = self.use_tls == "implicit" or (self.use_tls is True and self.smtp_port == IMPLICIT_TLS_PORT)
        return "implicit" if implicit else "starttls"

    def shown(self, text: str) -> str:
        """The text without control characters: it is shown as it is."""
        return readable(text)

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """The plugin that mails one recipient."""
        password = secrets.get("smtp_password_ref")
        login = None if self.smtp_user is None or password is None else (self.smtp_user, password)
        server = MailServer(self.smtp_host, self.smtp_port, self._tls_mode, login)
        return SmtpMail(server, self.from_address, recipient or "", message.delivery_id)
