"""How the client of S3 stores connects: with the TLS of all other connections."""

import ssl

from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

from spine.egress.tls import modern


class ModernSession(AIOHTTPSession):  # type: ignore[misc]
    """Refuses TLS before version 1.2. It stands on a private name of aiobotocore, which `test_tls_reasons` tests."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        return modern(super()._get_ssl_context())
