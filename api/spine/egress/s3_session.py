"""How the client of S3 stores is made: with the TLS of all other connections, and without reading its files again."""

import os
import ssl
from functools import cache
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.loaders import create_loader  # type: ignore[import-untyped]

from spine.egress.tls import modern


class ModernSession(AIOHTTPSession):  # type: ignore[misc]
    """Refuses TLS before version 1.2. It stands on a private name of aiobotocore, which `test_tls_reasons` tests."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        return modern(super()._get_ssl_context())


# Keeps botocore from reading these from the environment or from files.
_NO_ENVIRONMENT = {
    "profile": (None, None, None, None),
    "region": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def session_without_environment() -> AioSession:
    """A session that knows what it is given only. All of a process share the descriptions of the service."""
    session = AioSession(session_vars=_NO_ENVIRONMENT)
    session.register_component("data_loader", _descriptions())
    return session


@cache
def _descriptions() -> Any:
    # It keeps what it has read and parsed: some megabytes of JSON, which take longer than a small object.
    return create_loader()
