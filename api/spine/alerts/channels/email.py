"""Email over SMTP, one message to each recipient."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from apprise.plugins.base import NotifyBase
from apprise.plugins.email.base import NotifyEmail
from apprise.utils.parse import is_email, parse_emails
from pydantic import AfterValidator, Field, model_validator

from spine.alerts.channels.base import ASSET, ChannelConfig, ShortText
from spine.alerts.messages import AlertMessage
from spine.secrets.refs import check_ref

IMPLICIT_TLS_PORT = 465


def _is_address(address: str) -> str:
    read = is_email(address)
    # Apprise leaves away what it does not understand: it would write to somebody else, or to nobody.
    if not read or read["full_email"] != address or parse_emails([address]) != [address]:
        raise ValueError("must be an email address such as desk@example.com")
    return address


def _is_host(host: str) -> str:
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise ValueError("must be the name or the address of a host")
    return host


Address = Annotated[str, Field(max_length=320), AfterValidator(_is_address)]


class EmailConfig(ChannelConfig):
    """An SMTP server and who gets mail: TLS from the start on port 465, by STARTTLS elsewhere, or none."""

    smtp_host: Annotated[ShortText, AfterValidator(_is_host)]
    smtp_port: Annotated[int, Field(ge=1, le=65535)]
    smtp_user: ShortText | None = None
    smtp_password_ref: Annotated[ShortText, AfterValidator(check_ref)] | None = None
    from_address: Address
    recipients: Annotated[list[Address], Field(min_length=1, max_length=50)]
    # True: from the start on port 465, by STARTTLS elsewhere; the two words say which, whatever the port.
    use_tls: bool | Literal["starttls", "implicit"] = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.recipients)) < len(self.recipients):
            raise ValueError("recipients: each may be named once")
        if (self.smtp_user is None) != (self.smtp_password_ref is None):
            raise ValueError("smtp_user and smtp_password_ref belong together: set both or none")
        return self

    def hosts(self) -> list[str]:
        """The SMTP server."""
        return [self.smtp_host]

    def receivers(self) -> list[str | None]:
        """Every address on its own, so that one that is refused does not let the others get the mail again."""
        return list(self.recipients)

    @property
    def _secure_mode(self) -> str:
        """What Apprise calls it."""
        if not self.use_tls:
            return "insecure"
        implicit = self.use_tls == "implicit" or (self.use_tls is True and self.smtp_port == IMPLICIT_TLS_PORT)
        return "ssl" if implicit else "starttls"

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's email for one recipient."""
        return NotifyEmail(
            smtp_host=self.smtp_host,
            host=self.smtp_host,
            port=self.smtp_port,
            secure_mode=self._secure_mode,
            secure=bool(self.use_tls),
            user=self.smtp_user,
            password=secrets.get("smtp_password_ref"),
            from_addr=self.from_address,
            targets=[recipient],
            headers={"X-Spine-Delivery": message.delivery_id},
            format="text",
            asset=ASSET,
        )
