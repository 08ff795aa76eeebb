"""A webhook: the alert as JSON, to any URL."""

import hmac
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

from apprise.plugins.base import NotifyBase
from pydantic import AfterValidator, Field, SecretStr

from spine.alerts.channels.base import ChannelConfig, LongSecret, Place, SecretUrl, endpoints_in
from spine.alerts.channels.json_post import JsonPost, as_json
from spine.alerts.messages import AlertMessage

SIGNATURE = "X-Spine-Signature"
_RESERVED_HEADERS = {"content-length", "host", "transfer-encoding", "connection", "idempotency-key", SIGNATURE.lower()}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _are_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError("the name of a header may contain only letters, digits and hyphens")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"the header {name} is set by Spine")
        text = value.get_secret_value()
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of the header {name} contains characters that are not allowed in a header")
    return headers


Headers = Annotated[dict[str, SecretStr], Field(max_length=50), AfterValidator(_are_headers)]


class WebhookConfig(ChannelConfig):
    """A URL that accepts a POST of JSON; with `secret`, the body is signed with HMAC-SHA256."""

    free_fields = frozenset({"headers", "secret"})

    url: SecretUrl
    headers: Headers | None = None
    secret: LongSecret | None = None

    def endpoints(self) -> list[Place]:
        """The host and port of the URL."""
        return endpoints_in(self.url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A POST with the same `Idempotency-Key` at every attempt."""
        body = json.dumps(as_json(message))
        headers = {name: value.get_secret_value() for name, value in (self.headers or {}).items()}
        headers["Idempotency-Key"] = message.delivery_id
        if self.secret is not None:
            digest = hmac.new(self.secret.get_secret_value().encode(), body.encode(), sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={digest}"
        return JsonPost(self.url.get_secret_value(), body, headers)
