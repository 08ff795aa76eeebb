"""Configuration of SFTP sources."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory, Text
from spine.settings import Settings
from spine.sources.readers.base import Reader
from spine.sources.readers.globs import has_magic
from spine.sources.types.base import Host, PathText, Place, Ref, ShortText, SourceConfig

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_KEY_TYPES = re.compile(r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)")


def _is_host_key(text: str) -> str:
    text = text.strip()
    if _FINGERPRINT.fullmatch(text):
        return text.rstrip("=")
    kind, _, rest = text.partition(" ")
    encoded = rest.split(" ")[0]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    # An encoded key begins with its type, which reveals a truncated or mixed-up line.
    named = len(kind).to_bytes(4, "big") + kind.encode()
    if not _KEY_TYPES.fullmatch(kind) or not blob.startswith(named) or len(blob) < len(named) + 32:
        raise ValueError(
            "must be the server's public key in OpenSSH format (ssh-ed25519 AAAA...) or its fingerprint (SHA256:...)"
        )
    return f"{kind} {encoded}"


class SftpConfig(SourceConfig):
    """A server with its host key, a login, and a path or pattern; relative ones start at the user's home."""

    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    username: ShortText
    password_ref: Ref | None = None
    private_key_ref: Ref | None = None
    host_key: Annotated[Text, Field(min_length=1, max_length=4_000), AfterValidator(_is_host_key)]
    path: PathText

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.password_ref is None) == (self.private_key_ref is None):
            raise ValueError("set exactly one of password_ref and private_key_ref")
        return self

    def is_list(self) -> bool:
        """Whether `path` is a pattern."""
        return has_magic(self.path)

    def endpoints(self) -> dict[str, Place]:
        """The host and port of the server."""
        return {"host": (self.host, self.port)}

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """A reader of the files. Raises `FetchFailure` if the private key is invalid or a package is not installed."""
        try:
            from spine.sources.readers.sftp import SftpLocation, SftpReader
        except ModuleNotFoundError as missing:
            sentence = f"SFTP sources need the package {missing.name}, which is not installed."
            raise FetchFailure(ErrorCategory.CONFIG, sentence) from None
        location = SftpLocation(
            host=self.host,
            port=self.port,
            username=self.username,
            host_key=self.host_key,
            path=self.path,
            password=secrets.get("password_ref"),
            private_key=secrets.get("private_key_ref"),
        )
        return SftpReader(location, settings.allow_private_addresses, limits)
